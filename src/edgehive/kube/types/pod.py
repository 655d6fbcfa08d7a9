"""What is wanted of a pod.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.core.v1
Affinity # Rules about nodes and other pods.
  nodeAffinity NodeAffinity # Which nodes are required or preferred.
  podAffinity PodAffinity # Which pods it should be near.
  podAntiAffinity PodAntiAffinity # Which pods it should be away from.
AppArmorProfile # An AppArmor profile.
  localhostProfile string # Profile of the node, for type Localhost.
  type! string # Localhost, RuntimeDefault or Unconfined.
Capabilities # Linux capabilities.
  add []string atomic # Capabilities to add.
  drop []string atomic # Capabilities to drop.
ConfigMapEnvSource # A ConfigMap whose keys become variables.
  name string # Name, unique where it is used.
  optional bool # Whether it may be missing.
ConfigMapKeySelector atomic # A key of a ConfigMap.
  key! string # Name of the key.
  name string # Name, unique where it is used.
  optional bool # Whether it may be missing.
Container # An image that runs in a pod.
  args []string atomic # Arguments of the entry point; $(NAME) is replaced from the environment.
  command []string atomic # Entry point instead of the image's; not run in a shell.
  env []EnvVar key=name patch=merge:name # Environment variables, by name.
  envFrom []EnvFromSource atomic # Sources whose keys all become environment variables; env wins over them.
  image string # Name of the image.
  imagePullPolicy string # When to pull: Always, IfNotPresent or Never; by default Always for the tag latest.
  lifecycle Lifecycle # What is run after the start and before the end of the container.
  livenessProbe Probe # Check whether the container must be restarted.
  name! string # Name, unique in the pod; cannot be changed.
  ports []ContainerPort key=containerPort,protocol patch=merge:containerPort # Ports the container listens on.
  readinessProbe Probe # Check whether the container can be sent traffic.
  resizePolicy []ContainerResizePolicy atomic # Whether a resize restarts the container, by resource.
  resources ResourceRequirements default={} # Amounts that are wanted and the most that may be used.
  restartPolicy string # For init containers: Always makes it run beside the others.
  restartPolicyRules []ContainerRestartRule atomic # Exit codes that are treated otherwise.
  securityContext SecurityContext # Privileges and identity of the processes.
  startupProbe Probe # Check that must succeed before the other checks begin.
  stdin bool # Whether standard input is kept open.
  stdinOnce bool # Whether standard input ends with the first client.
  terminationMessagePath string default="/dev/termination-log" # File in the container whose content becomes the termination message.
  terminationMessagePolicy string default="File" # Where that message comes from: File or FallbackToLogsOnError.
  tty bool # Whether the container gets a terminal.
  volumeDevices []VolumeDevice key=devicePath patch=merge:devicePath # Block devices given to the container.
  volumeMounts []VolumeMount key=mountPath patch=merge:mountPath # Where volumes appear in the container.
  workingDir string # Working directory of the process.
ContainerPort # A port of a container.
  containerPort! int32 # Port in the container, 1 to 65535.
  hostIP string # Address of the host to bind to.
  hostPort int32 # Port of the node that leads to the container.
  name string # Name, unique where it is used.
  protocol string default="TCP" # TCP, UDP or SCTP.
ContainerResizePolicy # Whether a resize restarts a container.
  resourceName! string # Name of the resource.
  restartPolicy! string # NotRequired or RestartContainer.
ContainerRestartRule # Exit codes that are treated otherwise.
  action! string # What is done: Restart or RestartAllContainers.
  exitCodes ContainerRestartRuleOnExitCodes # Exit codes the rule is about.
ContainerRestartRuleOnExitCodes # Exit codes a rule is about.
  operator! string # In or NotIn.
  values []int32 set # Values to compare with.
EnvFromSource # A source of environment variables.
  configMapRef ConfigMapEnvSource # All keys of a ConfigMap.
  prefix string # Text put before each name.
  secretRef SecretEnvSource # All keys of a Secret.
EnvVar # An environment variable.
  name! string # Name, unique where it is used.
  value string # The value; $(NAME) is replaced from variables before it.
  valueFrom EnvVarSource # Source of the value.
EnvVarSource # Source of an environment variable; exactly one must be chosen.
  configMapKeyRef ConfigMapKeySelector # A key of a ConfigMap.
  fieldRef ObjectFieldSelector # A field of the pod.
  fileKeyRef FileKeySelector # A key of a file in a volume.
  resourceFieldRef ResourceFieldSelector # A resource of a container.
  secretKeyRef SecretKeySelector # A key of a Secret.
EphemeralContainer # A container added to a running pod for debugging.
  args []string atomic # Arguments of the entry point; $(NAME) is replaced from the environment.
  command []string atomic # Entry point instead of the image's; not run in a shell.
  env []EnvVar key=name patch=merge:name # Environment variables, by name.
  envFrom []EnvFromSource atomic # Sources whose keys all become environment variables; env wins over them.
  image string # Name of the image.
  imagePullPolicy string # When to pull: Always, IfNotPresent or Never; by default Always for the tag latest.
  lifecycle Lifecycle # What is run after the start and before the end of the container.
  livenessProbe Probe # Check whether the container must be restarted.
  name! string # Name, unique where it is used.
  ports []ContainerPort key=containerPort,protocol patch=merge:containerPort # Not allowed.
  readinessProbe Probe # Check whether the container can be sent traffic.
  resizePolicy []ContainerResizePolicy atomic # Whether a resize restarts the container, by resource.
  resources ResourceRequirements default={} # Amounts that are wanted and the most that may be used.
  restartPolicy string # Not allowed.
  restartPolicyRules []ContainerRestartRule atomic # Exit codes that are treated otherwise.
  securityContext SecurityContext # Privileges and identity of the processes.
  startupProbe Probe # Check that must succeed before the other checks begin.
  stdin bool # Whether standard input is kept open.
  stdinOnce bool # Whether standard input ends with the first client.
  targetContainerName string # Container whose processes can be seen.
  terminationMessagePath string default="/dev/termination-log" # File in the container whose content becomes the termination message.
  terminationMessagePolicy string default="File" # Where that message comes from: File or FallbackToLogsOnError.
  tty bool # Whether the container gets a terminal.
  volumeDevices []VolumeDevice key=devicePath patch=merge:devicePath # Block devices given to the container.
  volumeMounts []VolumeMount key=mountPath patch=merge:mountPath # Where volumes appear in the container.
  workingDir string # Working directory of the process.
ExecAction # A command run in a container.
  command []string atomic # Program and arguments; not run in a shell.
FileKeySelector atomic # A key of a file in a volume.
  key! string # Name of the key.
  optional bool # Whether it may be missing.
  path! string # A path.
  volumeName! string # Name of the volume.
GRPCAction # A gRPC health check.
  port! int32 # Number of the port.
  service string default="" # Name of the service in the request.
HTTPGetAction # An HTTP request.
  host string # Host to connect to; the pod itself when absent.
  httpHeaders []HTTPHeader atomic # Headers of the request.
  path string default="/" # Path of the request.
  port! intstr # Number of the port.
  scheme string default="HTTP" # HTTP or HTTPS; certificates are not checked.
HTTPHeader # A header of a request.
  name! string # Name, unique where it is used.
  value! string # The value.
HostAlias # An entry of the hosts file.
  hostnames []string atomic # Names of the address.
  ip! string # An IP address.
Lifecycle # What is run around the life of a container.
  postStart LifecycleHandler # Run right after the start.
  preStop LifecycleHandler # Run before the container is stopped.
  stopSignal string # Signal that stops the container.
LifecycleHandler # Something to run; exactly one way must be chosen.
  exec ExecAction # A command run in the container; exit code 0 is success.
  httpGet HTTPGetAction # An HTTP request; status 200 to 399 is success.
  sleep SleepAction # Do nothing for some seconds.
  tcpSocket TCPSocketAction # A TCP connection; success when it opens.
NodeAffinity # Which nodes are required or preferred.
  preferredDuringSchedulingIgnoredDuringExecution []PreferredSchedulingTerm atomic # Wishes, each with a weight.
  requiredDuringSchedulingIgnoredDuringExecution NodeSelector # What must hold for the pod to be put on a node.
NodeSelector atomic # Selects nodes; one term must match.
  nodeSelectorTerms! []NodeSelectorTerm atomic # Terms, one of which must match.
NodeSelectorRequirement # A condition on labels or fields of a node.
  key! string # Name of the key.
  operator! string # In, NotIn, Exists, DoesNotExist, Gt or Lt.
  values []string atomic # Values to compare with.
NodeSelectorTerm atomic # Conditions on a node, all of which must hold.
  matchExpressions []NodeSelectorRequirement atomic # Conditions, all of which must hold.
  matchFields []NodeSelectorRequirement atomic # Conditions on fields of the node, all of which must hold.
ObjectFieldSelector atomic # A field of the pod.
  apiVersion string default="v1" # Version in which the path is meant; default v1.
  fieldPath! string # Path of the field, such as metadata.name or status.podIP.
Pod # A group of containers that run together on one node.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec PodSpec # What to run, and how.
  status PodStatus # What is observed of the pod.
PodAffinity # Which pods a pod should be near.
  preferredDuringSchedulingIgnoredDuringExecution []WeightedPodAffinityTerm atomic # Wishes, each with a weight.
  requiredDuringSchedulingIgnoredDuringExecution []PodAffinityTerm atomic # What must hold for the pod to be put on a node.
PodAffinityTerm # Which pods, and what counts as one place.
  labelSelector LabelSelector # Selects objects by their labels.
  matchLabelKeys []string atomic # Label keys whose values are taken from the pod itself.
  mismatchLabelKeys []string atomic # Label keys whose values must differ from those of the pod itself.
  namespaceSelector LabelSelector # Selects the namespaces that are looked at.
  namespaces []string atomic # Namespaces that are looked at.
  topologyKey! string # Node label that says which nodes are one place.
PodAntiAffinity # Which pods a pod should be away from.
  preferredDuringSchedulingIgnoredDuringExecution []WeightedPodAffinityTerm atomic # Wishes, each with a weight.
  requiredDuringSchedulingIgnoredDuringExecution []PodAffinityTerm atomic # What must hold for the pod to be put on a node.
PodDNSConfig # Name server settings of a pod.
  nameservers []string atomic # Addresses of name servers.
  options []PodDNSConfigOption atomic # Further options.
  searches []string atomic # Domains to search.
PodDNSConfigOption # An option of the resolver.
  name string # Name, unique where it is used.
  value string # The value.
PodOS # Operating system a pod is made for.
  name! string # linux or windows.
PodReadinessGate # A condition that must be true for a pod to be ready.
  conditionType! string # Type of the condition.
PodResourceClaim # A claim of dynamic resources by a pod.
  name! string # Name, unique where it is used.
  resourceClaimName string # Name of a claim.
  resourceClaimTemplateName string # Template a claim is made from.
PodSchedulingGate # Holds a pod back from scheduling.
  name! string # Name, unique where it is used.
PodSchedulingGroup # Group a pod is scheduled with.
  podGroupName string # Group of pods in the pod's namespace.
PodSecurityContext # Privileges and identity of all containers of a pod.
  appArmorProfile AppArmorProfile # AppArmor profile of the processes.
  fsGroup int64 # Group that owns volumes and is added to every process.
  fsGroupChangePolicy string # When volumes are given to fsGroup: OnRootMismatch or Always.
  runAsGroup int64 # Group the processes run as.
  runAsNonRoot bool # Whether running as root is refused.
  runAsUser int64 # User the processes run as.
  seLinuxChangePolicy string # How volumes get their SELinux label: MountOption or Recursive.
  seLinuxOptions SELinuxOptions # SELinux label of the processes.
  seccompProfile SeccompProfile # Filter of system calls.
  supplementalGroups []int64 atomic # Further groups of the process.
  supplementalGroupsPolicy string # How groups of the image count: Merge or Strict.
  sysctls []Sysctl atomic # Kernel settings of the pod.
  windowsOptions WindowsSecurityContextOptions # Windows settings.
PodSpec # What to run, and how.
  activeDeadlineSeconds int64 # Seconds the pod may be active on its node before it is failed and stopped.
  affinity Affinity # Rules about which nodes, and near which other pods, the pod may run.
  automountServiceAccountToken bool # Whether containers get a token of the service account mounted.
  containers! []Container key=name patch=merge:name # Containers of the pod; at least one. Cannot be added or removed.
  dnsConfig PodDNSConfig # Name server settings, added to those of dnsPolicy.
  dnsPolicy string default="ClusterFirst" # Where name server settings come from: ClusterFirst, ClusterFirstWithHostNet, Default or None.
  enableServiceLinks bool default=true # Whether services are told to containers in environment variables.
  ephemeralContainers []EphemeralContainer key=name patch=merge:name # Containers added to a running pod for debugging.
  hostAliases []HostAlias key=ip patch=merge:ip # Entries added to the pod's hosts file.
  hostIPC bool # Whether the pod shares the host's IPC namespace.
  hostNetwork bool # Whether the pod uses the host's network.
  hostPID bool # Whether the pod sees the host's processes.
  hostUsers bool # Whether the pod shares the host's user namespace; default true.
  hostname string # Host name.
  hostnameOverride string # Host name instead of the pod's, as given.
  imagePullSecrets []LocalObjectReference key=name patch=merge:name # Secrets with which images are pulled.
  initContainers []Container key=name patch=merge:name # Containers run one after the other before the others start.
  nodeName string # Node the pod is put on; set by the scheduler when absent.
  nodeSelector map:string map-atomic # Labels the node must have.
  os PodOS # Operating system the pod is made for.
  overhead map:quantity # Resources the runtime itself needs for the pod.
  preemptionPolicy string # Whether other pods may be removed for it: Never or PreemptLowerPriority.
  priority int32 # Priority of the pod; set from priorityClassName.
  priorityClassName string # Class that gives the pod its priority.
  readinessGates []PodReadinessGate atomic # Conditions that must be true for the pod to be ready.
  resourceClaims []PodResourceClaim key=name patch=merge,retainKeys:name # Claims of dynamic resources.
  resources ResourceRequirements # Resources of the pod as a whole.
  restartPolicy string default="Always" # When containers are started again: Always, OnFailure or Never.
  runtimeClassName string # RuntimeClass to run the pod with.
  schedulerName string default="default-scheduler" # Scheduler that places the pod.
  schedulingGates []PodSchedulingGate key=name patch=merge:name # Gates that hold the pod back from scheduling until removed.
  schedulingGroup PodSchedulingGroup # Group the pod is scheduled with.
  securityContext PodSecurityContext default={} # Privileges and identity of all containers.
  serviceAccount string # Same as serviceAccountName; deprecated.
  serviceAccountName string # Account the pod acts as.
  setHostnameAsFQDN bool # Whether the full domain name is the host name.
  shareProcessNamespace bool # Whether all containers see each other's processes.
  subdomain string # Gives the pod a domain name below this service.
  terminationGracePeriodSeconds int64 default=30 # Seconds between the request to stop and the kill; default 30.
  tolerations []Toleration atomic # Taints the pod puts up with.
  topologySpreadConstraints []TopologySpreadConstraint key=topologyKey,whenUnsatisfiable patch=merge:topologyKey # How pods are spread over places.
  volumes []Volume key=name patch=merge,retainKeys:name # Volumes the containers can mount.
PodTemplate # A stored description of pods.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  template PodTemplateSpec # Pods to make.
PodTemplateSpec # Labels and specification of pods to make.
  metadata ObjectMeta # Labels and annotations of the pods.
  spec PodSpec # What the pods run.
PreferredSchedulingTerm # A wish about nodes.
  preference! NodeSelectorTerm # The term that is weighed.
  weight! int32 # How much it counts, 1 to 100.
Probe # A check of a container; exactly one way must be chosen.
  exec ExecAction # A command run in the container; exit code 0 is success.
  failureThreshold int32 default=3 # Failures in a row after which the check has failed; default 3.
  grpc GRPCAction # A gRPC health check.
  httpGet HTTPGetAction # An HTTP request; status 200 to 399 is success.
  initialDelaySeconds int32 # Seconds after the start before the first check.
  periodSeconds int32 default=10 # Seconds between checks; default 10.
  successThreshold int32 default=1 # Successes in a row after which the check has succeeded; default 1.
  tcpSocket TCPSocketAction # A TCP connection; success when it opens.
  terminationGracePeriodSeconds int64 # Seconds to stop after this check has failed, instead of the pod's.
  timeoutSeconds int32 default=1 # Seconds after which an attempt has failed; default 1.
ResourceClaim # A claim of the pod that a container uses.
  name! string # Name, unique where it is used.
  request string # One request of the claim.
ResourceFieldSelector atomic # A resource of a container.
  containerName string # Container the entry is about.
  divisor quantity default="0" # Unit the value is given in; 1 when absent.
  resource! string # Resource of the container, such as limits.cpu.
ResourceRequirements # Resources wanted, and the most that may be used.
  claims []ResourceClaim key=name # Claims of dynamic resources that the container uses.
  limits map:quantity # Most that may be used, by resource.
  requests map:quantity # Least that is set aside, by resource.
SELinuxOptions # An SELinux label.
  level string # SELinux level.
  role string # SELinux role.
  type string # Kind of it.
  user string # Name of the user.
SeccompProfile # A filter of system calls.
  localhostProfile string # Profile of the node, for type Localhost.
  type! string # Localhost, RuntimeDefault or Unconfined.
SecretEnvSource # A Secret whose keys become variables.
  name string # Name, unique where it is used.
  optional bool # Whether it may be missing.
SecretKeySelector atomic # A key of a Secret.
  key! string # Name of the key.
  name string # Name, unique where it is used.
  optional bool # Whether it may be missing.
SecurityContext # Privileges and identity of a container; wins over the pod's.
  allowPrivilegeEscalation bool # Whether a process may gain more privileges than its parent.
  appArmorProfile AppArmorProfile # AppArmor profile of the processes.
  capabilities Capabilities # Linux capabilities to add and to drop.
  privileged bool # Whether it may do anything that root of the host may.
  procMount string # How /proc is mounted: Default or Unmasked.
  readOnlyRootFilesystem bool # Whether the root file system is read-only.
  runAsGroup int64 # Group the processes run as.
  runAsNonRoot bool # Whether running as root is refused.
  runAsUser int64 # User the processes run as.
  seLinuxOptions SELinuxOptions # SELinux label of the processes.
  seccompProfile SeccompProfile # Filter of system calls.
  windowsOptions WindowsSecurityContextOptions # Windows settings.
SleepAction # Do nothing for some seconds.
  seconds! int64 # How long to sleep.
Sysctl # A kernel setting.
  name! string # Name, unique where it is used.
  value! string # The value.
TCPSocketAction # A TCP connection.
  host string # Host to connect to; the pod itself when absent.
  port! intstr # Number of the port.
Toleration # A taint that a pod puts up with.
  effect string # Effect that is tolerated; all when absent.
  key string # Name of the key.
  operator string # Equal or Exists; default Equal.
  tolerationSeconds int64 # Seconds the pod may stay after a NoExecute taint appears; for ever when absent.
  value string # Value of the taint, for operator Equal.
TopologySpreadConstraint # How pods are spread over places.
  labelSelector LabelSelector # Selects objects by their labels.
  matchLabelKeys []string atomic # Label keys whose values are taken from the pod itself.
  maxSkew! int32 # How uneven the spread may be.
  minDomains int32 # Domains there should at least be.
  nodeAffinityPolicy string # Whether nodes ruled out by affinity count: Honor or Ignore.
  nodeTaintsPolicy string # Whether tainted nodes count: Honor or Ignore.
  topologyKey! string # Node label that says which nodes are one place.
  whenUnsatisfiable! string # What to do when it cannot be met: DoNotSchedule or ScheduleAnyway.
VolumeDevice # A block device given to a container.
  devicePath! string # Path of the device.
  name! string # Name, unique where it is used.
VolumeMount # Where a volume appears in a container.
  mountPath! string # Path in the container.
  mountPropagation string # How mounts spread between host and container.
  name! string # Name of the volume.
  readOnly bool # Whether nothing can be written.
  recursiveReadOnly string # Whether mounts below are read-only too.
  subPath string # Path in the volume to mount instead of its root.
  subPathExpr string # As subPath, with $(NAME) replaced from the environment.
WeightedPodAffinityTerm # A wish about other pods.
  podAffinityTerm! PodAffinityTerm # The term that is weighed.
  weight! int32 # How much it counts, 1 to 100.
WindowsSecurityContextOptions # Windows settings.
  gmsaCredentialSpec string # Windows credential specification.
  gmsaCredentialSpecName string # Name of the Windows credential specification.
  hostProcess bool # Whether the container runs in the host's namespaces (Windows).
  runAsUserName string # Windows user the processes run as.
"""
