"""Namespaces, nodes, configuration, events, leases, priorities.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.coordination.v1
Lease # A claim that is held for a time and must be renewed; nodes tell by it that they are alive.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec LeaseSpec default={} # Who holds the lease, and since when.
LeaseSpec # Who holds a lease.
  acquireTime microtime # Time the lease was taken.
  holderIdentity string # Who holds the lease.
  leaseDurationSeconds int32 # Seconds after renewTime before others may take the lease.
  leaseTransitions int32 # Times the lease changed hands.
  preferredHolder string # Who should get the lease next.
  renewTime microtime # Time the holder last renewed the lease.
  strategy string # How the next holder is chosen.
@package io.k8s.api.core.v1
AttachedVolume # A volume attached to a node.
  devicePath! string # Path of the device.
  name! string # Name, unique where it is used.
Binding # Puts a pod on a node.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  target! ObjectReference # Node the pod is bound to.
ConfigMap # Configuration as keys and values, used by pods.
  apiVersion string # Group and version of this object.
  binaryData map:bytes # Data that is not UTF-8 text, in base64.
  data map:string # Text entries by key.
  immutable bool # Whether the data can no longer be changed.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
ConfigMapNodeConfigSource # A ConfigMap with configuration; no longer used.
  kubeletConfigKey! string # Key of the ConfigMap that holds the configuration.
  name! string # Name, unique where it is used.
  namespace! string # Namespace of the object.
  resourceVersion string # Changes with every write of the object; compare for equality only.
  uid string # Identifier, unique over all time; set by the server.
ContainerImage # An image on a node.
  names []string atomic # Names it is known by.
  sizeBytes int64 # Size in bytes.
DaemonEndpoint # A port of a node.
  Port! int32 # Number of the port.
Event # Something that happened to an object.
  action string # What was done, or what failed to be done, about the object.
  apiVersion string # Group and version of this object.
  count int32 # Times it has happened.
  eventTime microtime # Time it was first observed.
  firstTimestamp time # Time it first happened.
  involvedObject! ObjectReference # Object the event is about.
  kind string # What this object is.
  lastTimestamp time # Time it last happened.
  message string # What happened, for people.
  metadata! ObjectMeta # Name, labels and what else every object has.
  reason string # Why it happened, in one word.
  related ObjectReference # A second object, if the action is about two.
  reportingComponent string # Controller that reports.
  reportingInstance string # Instance of that controller.
  series EventSeries # How often it repeats.
  source EventSource # Who reports.
  type string # Normal or Warning.
EventSeries # How often an event repeats.
  count int32 # Times it has happened.
  lastObservedTime microtime # Time it was last observed.
EventSource # Who reported an event.
  component string # Program that reports.
  host string # Node it was reported from.
LocalObjectReference atomic # Points at an object in the same namespace.
  name string # Name, unique where it is used.
Namespace # A space for names: most objects live in one, and are deleted with it.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec NamespaceSpec default={} # Finalizers of the namespace.
  status NamespaceStatus default={} # Whether the namespace is in use or being deleted.
NamespaceCondition # One observation of a namespace.
  lastTransitionTime time # Time the status last changed.
  message string # What happened, for people.
  reason string # Why, in one word.
  status! string # What is observed.
  type! string # Kind of it.
NamespaceSpec # What must happen before a namespace goes.
  finalizers []string atomic # What must happen before the object is removed; each entry is taken out by its controller.
NamespaceStatus # Whether a namespace is in use.
  conditions []NamespaceCondition key=type patch=merge:type # What is observed at present, by type.
  phase string # Active or Terminating.
Node # A machine that runs pods.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec NodeSpec default={} # What is wanted of the node, taints among it.
  status NodeStatus default={} # Resources, conditions, addresses and versions of the node.
NodeAddress # An address of a node.
  address! string # The address.
  type! string # Hostname, InternalIP, ExternalIP, InternalDNS or ExternalDNS.
NodeCondition # One observation of a node.
  lastHeartbeatTime time # Time it was last confirmed.
  lastTransitionTime time # Time the status last changed.
  message string # What happened, for people.
  reason string # Why, in one word.
  status! string # What is observed.
  type! string # Kind of it.
NodeConfigSource # Source of dynamic configuration; no longer used.
  configMap ConfigMapNodeConfigSource # Files from the keys of a ConfigMap.
NodeConfigStatus # State of dynamic configuration; no longer used.
  active NodeConfigSource # Whether it is in use.
  assigned NodeConfigSource # Configuration that was assigned; no longer used.
  error string # What went wrong; empty when nothing.
  lastKnownGood NodeConfigSource # Last configuration that worked; no longer used.
NodeDaemonEndpoints # Ports of a node's services.
  kubeletEndpoint DaemonEndpoint # Port of the node agent.
NodeFeatures # What the runtime of a node can do.
  supplementalGroupsPolicy bool # Whether the runtime can treat groups strictly.
NodeRuntimeHandler # A way a runtime can run pods.
  features NodeRuntimeHandlerFeatures # Features of the node or its runtime.
  name string # Name, unique where it is used.
NodeRuntimeHandlerFeatures # What a runtime handler can do.
  recursiveReadOnlyMounts bool # Whether the runtime can make mounts below read-only.
  userNamespaces bool # Whether user namespaces can be used.
NodeSpec # What is wanted of a node.
  configSource NodeConfigSource # Source of dynamic configuration; no longer used.
  externalID string # Identifier from an old version.
  podCIDR string # Network of the node's pods.
  podCIDRs []string set patch=merge # Networks of the node's pods, at most one of each family.
  providerID string # Identifier of the node at its provider.
  taints []Taint atomic # Marks that keep pods away unless they tolerate them.
  unschedulable bool # Whether new pods are kept away.
NodeStatus # What is observed of a node.
  addresses []NodeAddress key=type patch=merge:type # Addresses it can be reached at.
  allocatable map:quantity # Resources of the node that pods may use.
  capacity map:quantity # Total resources, by name.
  conditions []NodeCondition key=type patch=merge:type # What is observed at present, by type.
  config NodeConfigStatus # State of dynamic configuration; no longer used.
  daemonEndpoints NodeDaemonEndpoints # Ports of the node's services.
  declaredFeatures []string atomic # Features the node says it supports.
  features NodeFeatures # Features of the node or its runtime.
  images []ContainerImage atomic # Images present on the node.
  nodeInfo NodeSystemInfo # Versions and identifiers of the node's software.
  phase string # No longer set.
  runtimeHandlers []NodeRuntimeHandler atomic # Ways the runtime can run pods.
  volumesAttached []AttachedVolume atomic # Volumes attached to the node.
  volumesInUse []string atomic # Attached volumes that are in use.
NodeSwapStatus # Swap space of a node.
  capacity int64 # Swap space in bytes.
NodeSystemInfo # Versions and identifiers of a node's software.
  architecture! string # Processor architecture, as Go names it.
  bootID! string # Changes with every boot of the node.
  containerRuntimeVersion! string # Container runtime and its version.
  kernelVersion! string # Version of the kernel.
  kubeProxyVersion! string # No longer set.
  kubeletVersion! string # Version of the node agent.
  machineID! string # Identifier of the machine.
  operatingSystem! string # Operating system: linux or windows.
  osImage! string # Operating system and its version.
  swap NodeSwapStatus # Swap space of the node.
  systemUUID! string # Identifier of the system.
ObjectReference atomic # Points at an object.
  apiVersion string # Group and version of this object.
  fieldPath string # Path to a field, such as spec.containers{name}.
  kind string # What this object is.
  name string # Name, unique where it is used.
  namespace string # Namespace of the object.
  resourceVersion string # Changes with every write of the object; compare for equality only.
  uid string # Identifier, unique over all time; set by the server.
Secret # Secret data as keys and values, used by pods.
  apiVersion string # Group and version of this object.
  data map:bytes # Entries by key, in base64.
  immutable bool # Whether the data can no longer be changed.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  stringData map:string # Entries as plain text; written into data and never read back.
  type string default="Opaque" # What the secret is for; some types require certain keys.
ServiceAccount # An identity for what runs in pods.
  apiVersion string # Group and version of this object.
  automountServiceAccountToken bool # Whether containers get a token of the service account mounted.
  imagePullSecrets []LocalObjectReference atomic # Secrets with which images are pulled.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  secrets []ObjectReference key=name patch=merge:name # Secrets that may be used by pods of the account.
Taint # A mark that keeps pods away.
  effect! string # What the taint does to pods that do not tolerate it: NoSchedule, PreferNoSchedule or NoExecute.
  key! string # Name of the key.
  timeAdded time # Time the taint was added.
  value string # Value of the taint.
@package io.k8s.api.events.v1
EventsEvent=Event # Something that happened to an object.
  action string # What was done, or what failed to be done, about the object.
  apiVersion string # Group and version of this object.
  deprecatedCount int32 # As count of a core event.
  deprecatedFirstTimestamp time # As firstTimestamp of a core event.
  deprecatedLastTimestamp time # As lastTimestamp of a core event.
  deprecatedSource EventSource # As source of a core event.
  eventTime! microtime # Time it was first observed.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  note string # What happened, for people.
  reason string # Why it happened, in one word.
  regarding ObjectReference # Object the event is about.
  related ObjectReference # A second object, if the action is about two.
  reportingController string # Controller that reports.
  reportingInstance string # Instance of that controller.
  series EventsEventSeries # How often it repeats.
  type string # Normal or Warning.
EventsEventSeries=EventSeries # How often an event repeats.
  count! int32 # Times it has happened.
  lastObservedTime! microtime # Time it was last observed.
@package io.k8s.api.scheduling.v1
PriorityClass # A name for a priority of pods.
  apiVersion string # Group and version of this object.
  description string # When to use the class.
  globalDefault bool # Whether pods without a class get this one.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  preemptionPolicy string default="PreemptLowerPriority" # Whether other pods may be removed for it: Never or PreemptLowerPriority.
  value int32 # The priority; higher is more important.
"""
