"""What is observed of a pod.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.core.v1
ContainerExtendedResourceRequest
  containerName! string
  requestName! string
  resourceName! string
ContainerState
  running ContainerStateRunning
  terminated ContainerStateTerminated
  waiting ContainerStateWaiting
ContainerStateRunning
  startedAt time
ContainerStateTerminated
  containerID string
  exitCode! int32
  finishedAt time
  message string
  reason string
  signal int32
  startedAt time
ContainerStateWaiting
  message string
  reason string
ContainerStatus
  allocatedResources map:quantity
  allocatedResourcesStatus []ResourceStatus key=name patch=merge:name
  containerID string
  image! string
  imageID! string
  lastState ContainerState
  name! string
  ready! bool
  resources ResourceRequirements
  restartCount! int32
  started bool
  state ContainerState
  stopSignal string
  user ContainerUser
  volumeMounts []VolumeMountStatus key=mountPath patch=merge:mountPath
ContainerUser
  linux LinuxContainerUser
HostIP
  ip! string
ImageVolumeStatus
  imageRef! string
LinuxContainerUser
  gid! int64
  supplementalGroups []int64 atomic
  uid! int64
NodeAllocatableResourceClaimStatus
  containers []string set
  resourceClaimName! string
  resources! map:quantity
PodCondition
  lastProbeTime time
  lastTransitionTime time
  message string
  observedGeneration int64
  reason string
  status! string
  type! string
PodExtendedResourceClaimStatus
  requestMappings! []ContainerExtendedResourceRequest atomic
  resourceClaimName! string
PodIP
  ip! string
PodResourceClaimStatus
  name! string
  resourceClaimName string
PodStatus
  allocatedResources map:quantity
  conditions []PodCondition key=type patch=merge:type
  containerStatuses []ContainerStatus atomic
  ephemeralContainerStatuses []ContainerStatus atomic
  extendedResourceClaimStatus PodExtendedResourceClaimStatus
  hostIP string
  hostIPs []HostIP atomic patch=merge:ip
  initContainerStatuses []ContainerStatus atomic
  message string
  nodeAllocatableResourceClaimStatuses []NodeAllocatableResourceClaimStatus atomic
  nominatedNodeName string
  observedGeneration int64
  phase string
  podIP string
  podIPs []PodIP key=ip patch=merge:ip
  qosClass string
  reason string
  resize string
  resourceClaimStatuses []PodResourceClaimStatus key=name patch=merge,retainKeys:name
  resources ResourceRequirements
  startTime time
ResourceHealth
  health string
  message string
  resourceID! string
ResourceStatus
  name! string
  resources []ResourceHealth key=resourceID
VolumeMountStatus
  mountPath! string
  name! string
  readOnly bool
  recursiveReadOnly string
  volumeStatus VolumeStatus
VolumeStatus
  image ImageVolumeStatus
"""
