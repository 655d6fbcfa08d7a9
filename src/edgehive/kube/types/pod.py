"""What is wanted of a pod.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.core.v1
Affinity
  nodeAffinity NodeAffinity
  podAffinity PodAffinity
  podAntiAffinity PodAntiAffinity
AppArmorProfile
  localhostProfile string
  type! string
Capabilities
  add []string atomic
  drop []string atomic
ConfigMapEnvSource
  name string
  optional bool
ConfigMapKeySelector atomic
  key! string
  name string
  optional bool
Container
  args []string atomic
  command []string atomic
  env []EnvVar key=name patch=merge:name
  envFrom []EnvFromSource atomic
  image string
  imagePullPolicy string
  lifecycle Lifecycle
  livenessProbe Probe
  name! string
  ports []ContainerPort key=containerPort,protocol patch=merge:containerPort
  readinessProbe Probe
  resizePolicy []ContainerResizePolicy atomic
  resources ResourceRequirements default={}
  restartPolicy string
  restartPolicyRules []ContainerRestartRule atomic
  securityContext SecurityContext
  startupProbe Probe
  stdin bool
  stdinOnce bool
  terminationMessagePath string default="/dev/termination-log"
  terminationMessagePolicy string default="File"
  tty bool
  volumeDevices []VolumeDevice key=devicePath patch=merge:devicePath
  volumeMounts []VolumeMount key=mountPath patch=merge:mountPath
  workingDir string
ContainerPort
  containerPort! int32
  hostIP string
  hostPort int32
  name string
  protocol string default="TCP"
ContainerResizePolicy
  resourceName! string
  restartPolicy! string
ContainerRestartRule
  action! string
  exitCodes ContainerRestartRuleOnExitCodes
ContainerRestartRuleOnExitCodes
  operator! string
  values []int32 set
EnvFromSource
  configMapRef ConfigMapEnvSource
  prefix string
  secretRef SecretEnvSource
EnvVar
  name! string
  value string
  valueFrom EnvVarSource
EnvVarSource
  configMapKeyRef ConfigMapKeySelector
  fieldRef ObjectFieldSelector
  fileKeyRef FileKeySelector
  resourceFieldRef ResourceFieldSelector
  secretKeyRef SecretKeySelector
EphemeralContainer
  args []string atomic
  command []string atomic
  env []EnvVar key=name patch=merge:name
  envFrom []EnvFromSource atomic
  image string
  imagePullPolicy string
  lifecycle Lifecycle
  livenessProbe Probe
  name! string
  ports []ContainerPort key=containerPort,protocol patch=merge:containerPort
  readinessProbe Probe
  resizePolicy []ContainerResizePolicy atomic
  resources ResourceRequirements default={}
  restartPolicy string
  restartPolicyRules []ContainerRestartRule atomic
  securityContext SecurityContext
  startupProbe Probe
  stdin bool
  stdinOnce bool
  targetContainerName string
  terminationMessagePath string default="/dev/termination-log"
  terminationMessagePolicy string default="File"
  tty bool
  volumeDevices []VolumeDevice key=devicePath patch=merge:devicePath
  volumeMounts []VolumeMount key=mountPath patch=merge:mountPath
  workingDir string
ExecAction
  command []string atomic
FileKeySelector atomic
  key! string
  optional bool
  path! string
  volumeName! string
GRPCAction
  port! int32
  service string default=""
HTTPGetAction
  host string
  httpHeaders []HTTPHeader atomic
  path string default="/"
  port! intstr
  scheme string default="HTTP"
HTTPHeader
  name! string
  value! string
HostAlias
  hostnames []string atomic
  ip! string
Lifecycle
  postStart LifecycleHandler
  preStop LifecycleHandler
  stopSignal string
LifecycleHandler
  exec ExecAction
  httpGet HTTPGetAction
  sleep SleepAction
  tcpSocket TCPSocketAction
NodeAffinity
  preferredDuringSchedulingIgnoredDuringExecution []PreferredSchedulingTerm atomic
  requiredDuringSchedulingIgnoredDuringExecution NodeSelector
NodeSelector atomic
  nodeSelectorTerms! []NodeSelectorTerm atomic
NodeSelectorRequirement
  key! string
  operator! string
  values []string atomic
NodeSelectorTerm atomic
  matchExpressions []NodeSelectorRequirement atomic
  matchFields []NodeSelectorRequirement atomic
ObjectFieldSelector atomic
  apiVersion string default="v1"
  fieldPath! string
Pod
  apiVersion string
  kind string
  metadata ObjectMeta
  spec PodSpec
  status PodStatus
PodAffinity
  preferredDuringSchedulingIgnoredDuringExecution []WeightedPodAffinityTerm atomic
  requiredDuringSchedulingIgnoredDuringExecution []PodAffinityTerm atomic
PodAffinityTerm
  labelSelector LabelSelector
  matchLabelKeys []string atomic
  mismatchLabelKeys []string atomic
  namespaceSelector LabelSelector
  namespaces []string atomic
  topologyKey! string
PodAntiAffinity
  preferredDuringSchedulingIgnoredDuringExecution []WeightedPodAffinityTerm atomic
  requiredDuringSchedulingIgnoredDuringExecution []PodAffinityTerm atomic
PodDNSConfig
  nameservers []string atomic
  options []PodDNSConfigOption atomic
  searches []string atomic
PodDNSConfigOption
  name string
  value string
PodOS
  name! string
PodReadinessGate
  conditionType! string
PodResourceClaim
  name! string
  resourceClaimName string
  resourceClaimTemplateName string
PodSchedulingGate
  name! string
PodSchedulingGroup
  podGroupName string
PodSecurityContext
  appArmorProfile AppArmorProfile
  fsGroup int64
  fsGroupChangePolicy string
  runAsGroup int64
  runAsNonRoot bool
  runAsUser int64
  seLinuxChangePolicy string
  seLinuxOptions SELinuxOptions
  seccompProfile SeccompProfile
  supplementalGroups []int64 atomic
  supplementalGroupsPolicy string
  sysctls []Sysctl atomic
  windowsOptions WindowsSecurityContextOptions
PodSpec
  activeDeadlineSeconds int64
  affinity Affinity
  automountServiceAccountToken bool
  containers! []Container key=name patch=merge:name
  dnsConfig PodDNSConfig
  dnsPolicy string default="ClusterFirst"
  enableServiceLinks bool default=true
  ephemeralContainers []EphemeralContainer key=name patch=merge:name
  hostAliases []HostAlias key=ip patch=merge:ip
  hostIPC bool
  hostNetwork bool
  hostPID bool
  hostUsers bool
  hostname string
  hostnameOverride string
  imagePullSecrets []LocalObjectReference key=name patch=merge:name
  initContainers []Container key=name patch=merge:name
  nodeName string
  nodeSelector map:string map-atomic
  os PodOS
  overhead map:quantity
  preemptionPolicy string
  priority int32
  priorityClassName string
  readinessGates []PodReadinessGate atomic
  resourceClaims []PodResourceClaim key=name patch=merge,retainKeys:name
  resources ResourceRequirements
  restartPolicy string default="Always"
  runtimeClassName string
  schedulerName string default="default-scheduler"
  schedulingGates []PodSchedulingGate key=name patch=merge:name
  schedulingGroup PodSchedulingGroup
  securityContext PodSecurityContext default={}
  serviceAccount string
  serviceAccountName string
  setHostnameAsFQDN bool
  shareProcessNamespace bool
  subdomain string
  terminationGracePeriodSeconds int64 default=30
  tolerations []Toleration atomic
  topologySpreadConstraints []TopologySpreadConstraint key=topologyKey,whenUnsatisfiable patch=merge:topologyKey
  volumes []Volume key=name patch=merge,retainKeys:name
PodTemplate
  apiVersion string
  kind string
  metadata ObjectMeta
  template PodTemplateSpec
PodTemplateSpec
  metadata ObjectMeta
  spec PodSpec
PreferredSchedulingTerm
  preference! NodeSelectorTerm
  weight! int32
Probe
  exec ExecAction
  failureThreshold int32 default=3
  grpc GRPCAction
  httpGet HTTPGetAction
  initialDelaySeconds int32
  periodSeconds int32 default=10
  successThreshold int32 default=1
  tcpSocket TCPSocketAction
  terminationGracePeriodSeconds int64
  timeoutSeconds int32 default=1
ResourceClaim
  name! string
  request string
ResourceFieldSelector atomic
  containerName string
  divisor quantity default="0"
  resource! string
ResourceRequirements
  claims []ResourceClaim key=name
  limits map:quantity
  requests map:quantity
SELinuxOptions
  level string
  role string
  type string
  user string
SeccompProfile
  localhostProfile string
  type! string
SecretEnvSource
  name string
  optional bool
SecretKeySelector atomic
  key! string
  name string
  optional bool
SecurityContext
  allowPrivilegeEscalation bool
  appArmorProfile AppArmorProfile
  capabilities Capabilities
  privileged bool
  procMount string
  readOnlyRootFilesystem bool
  runAsGroup int64
  runAsNonRoot bool
  runAsUser int64
  seLinuxOptions SELinuxOptions
  seccompProfile SeccompProfile
  windowsOptions WindowsSecurityContextOptions
SleepAction
  seconds! int64
Sysctl
  name! string
  value! string
TCPSocketAction
  host string
  port! intstr
Toleration
  effect string
  key string
  operator string
  tolerationSeconds int64
  value string
TopologySpreadConstraint
  labelSelector LabelSelector
  matchLabelKeys []string atomic
  maxSkew! int32
  minDomains int32
  nodeAffinityPolicy string
  nodeTaintsPolicy string
  topologyKey! string
  whenUnsatisfiable! string
VolumeDevice
  devicePath! string
  name! string
VolumeMount
  mountPath! string
  mountPropagation string
  name! string
  readOnly bool
  recursiveReadOnly string
  subPath string
  subPathExpr string
WeightedPodAffinityTerm
  podAffinityTerm! PodAffinityTerm
  weight! int32
WindowsSecurityContextOptions
  gmsaCredentialSpec string
  gmsaCredentialSpecName string
  hostProcess bool
  runAsUserName string
"""
