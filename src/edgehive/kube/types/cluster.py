"""Namespaces, nodes, configuration, events, leases, priorities.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.coordination.v1
Lease
  apiVersion string
  kind string
  metadata ObjectMeta
  spec LeaseSpec default={}
LeaseSpec
  acquireTime microtime
  holderIdentity string
  leaseDurationSeconds int32
  leaseTransitions int32
  preferredHolder string
  renewTime microtime
  strategy string
@package io.k8s.api.core.v1
AttachedVolume
  devicePath! string
  name! string
Binding
  apiVersion string
  kind string
  metadata ObjectMeta
  target! ObjectReference
ConfigMap
  apiVersion string
  binaryData map:bytes
  data map:string
  immutable bool
  kind string
  metadata ObjectMeta
ConfigMapNodeConfigSource
  kubeletConfigKey! string
  name! string
  namespace! string
  resourceVersion string
  uid string
ContainerImage
  names []string atomic
  sizeBytes int64
DaemonEndpoint
  Port! int32
Event
  action string
  apiVersion string
  count int32
  eventTime microtime
  firstTimestamp time
  involvedObject! ObjectReference
  kind string
  lastTimestamp time
  message string
  metadata! ObjectMeta
  reason string
  related ObjectReference
  reportingComponent string
  reportingInstance string
  series EventSeries
  source EventSource
  type string
EventSeries
  count int32
  lastObservedTime microtime
EventSource
  component string
  host string
LocalObjectReference atomic
  name string
Namespace
  apiVersion string
  kind string
  metadata ObjectMeta
  spec NamespaceSpec default={}
  status NamespaceStatus default={}
NamespaceCondition
  lastTransitionTime time
  message string
  reason string
  status! string
  type! string
NamespaceSpec
  finalizers []string atomic
NamespaceStatus
  conditions []NamespaceCondition key=type patch=merge:type
  phase string
Node
  apiVersion string
  kind string
  metadata ObjectMeta
  spec NodeSpec default={}
  status NodeStatus default={}
NodeAddress
  address! string
  type! string
NodeCondition
  lastHeartbeatTime time
  lastTransitionTime time
  message string
  reason string
  status! string
  type! string
NodeConfigSource
  configMap ConfigMapNodeConfigSource
NodeConfigStatus
  active NodeConfigSource
  assigned NodeConfigSource
  error string
  lastKnownGood NodeConfigSource
NodeDaemonEndpoints
  kubeletEndpoint DaemonEndpoint
NodeFeatures
  supplementalGroupsPolicy bool
NodeRuntimeHandler
  features NodeRuntimeHandlerFeatures
  name string
NodeRuntimeHandlerFeatures
  recursiveReadOnlyMounts bool
  userNamespaces bool
NodeSpec
  configSource NodeConfigSource
  externalID string
  podCIDR string
  podCIDRs []string set patch=merge
  providerID string
  taints []Taint atomic
  unschedulable bool
NodeStatus
  addresses []NodeAddress key=type patch=merge:type
  allocatable map:quantity
  capacity map:quantity
  conditions []NodeCondition key=type patch=merge:type
  config NodeConfigStatus
  daemonEndpoints NodeDaemonEndpoints
  declaredFeatures []string atomic
  features NodeFeatures
  images []ContainerImage atomic
  nodeInfo NodeSystemInfo
  phase string
  runtimeHandlers []NodeRuntimeHandler atomic
  volumesAttached []AttachedVolume atomic
  volumesInUse []string atomic
NodeSwapStatus
  capacity int64
NodeSystemInfo
  architecture! string
  bootID! string
  containerRuntimeVersion! string
  kernelVersion! string
  kubeProxyVersion! string
  kubeletVersion! string
  machineID! string
  operatingSystem! string
  osImage! string
  swap NodeSwapStatus
  systemUUID! string
ObjectReference atomic
  apiVersion string
  fieldPath string
  kind string
  name string
  namespace string
  resourceVersion string
  uid string
Secret
  apiVersion string
  data map:bytes
  immutable bool
  kind string
  metadata ObjectMeta
  stringData map:string
  type string default="Opaque"
ServiceAccount
  apiVersion string
  automountServiceAccountToken bool
  imagePullSecrets []LocalObjectReference atomic
  kind string
  metadata ObjectMeta
  secrets []ObjectReference key=name patch=merge:name
Taint
  effect! string
  key! string
  timeAdded time
  value string
@package io.k8s.api.events.v1
EventsEvent=Event
  action string
  apiVersion string
  deprecatedCount int32
  deprecatedFirstTimestamp time
  deprecatedLastTimestamp time
  deprecatedSource EventSource
  eventTime! microtime
  kind string
  metadata ObjectMeta
  note string
  reason string
  regarding ObjectReference
  related ObjectReference
  reportingController string
  reportingInstance string
  series EventsEventSeries
  type string
EventsEventSeries=EventSeries
  count! int32
  lastObservedTime! microtime
@package io.k8s.api.scheduling.v1
PriorityClass
  apiVersion string
  description string
  globalDefault bool
  kind string
  metadata ObjectMeta
  preemptionPolicy string default="PreemptLowerPriority"
  value int32
"""
