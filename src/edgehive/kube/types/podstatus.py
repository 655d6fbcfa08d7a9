"""What is observed of a pod.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.core.v1
ContainerExtendedResourceRequest # Which request serves an extended resource.
  containerName! string # Container the entry is about.
  requestName! string # Name of the request.
  resourceName! string # Name of the resource.
ContainerState # What a container is doing; one of the three is set.
  running ContainerStateRunning # It runs.
  terminated ContainerStateTerminated # It has ended.
  waiting ContainerStateWaiting # It has not started yet.
ContainerStateRunning # A container that runs.
  startedAt time # Time it was started.
ContainerStateTerminated # A container that has ended.
  containerID string # Identifier of the container, with the runtime's name as scheme.
  exitCode! int32 # Exit code of the main process.
  finishedAt time # Time it ended.
  message string # Last words of the container.
  reason string # Why, in one word.
  signal int32 # Signal that ended it.
  startedAt time # Time it was started.
ContainerStateWaiting # A container that has not started.
  message string # What happened, for people.
  reason string # Why, in one word.
ContainerStatus # State of a container.
  allocatedResources map:quantity # Resources set aside for the container.
  allocatedResourcesStatus []ResourceStatus key=name patch=merge:name # State of each device given to the container.
  containerID string # Identifier of the container, with the runtime's name as scheme.
  image! string # Name of the image.
  imageID! string # Identifier of the image.
  lastState ContainerState # How the container ended the last time.
  name! string # Name, unique where it is used.
  ready! bool # Whether it can be used.
  resources ResourceRequirements # Resources in effect.
  restartCount! int32 # Times the container was restarted.
  started bool # Whether the startup check has succeeded.
  state ContainerState # What it is doing.
  stopSignal string # Signal that stops the container.
  user ContainerUser # Users of the process.
  volumeMounts []VolumeMountStatus key=mountPath patch=merge:mountPath # Volumes that are mounted.
ContainerUser # Users of the process of a container.
  linux LinuxContainerUser # Users of the process on Linux.
HostIP # An address of a host.
  ip! string # An IP address.
ImageVolumeStatus # An image that is mounted.
  imageRef! string # Reference of the image, by digest.
LinuxContainerUser # Users of a process on Linux.
  gid! int64 # Primary group of the process.
  supplementalGroups []int64 atomic # Further groups of the process.
  uid! int64 # User of the process.
NodeAllocatableResourceClaimStatus # A claim that uses resources of a node.
  containers []string set # Containers that use the claim.
  resourceClaimName! string # Name of a claim.
  resources! map:quantity # Amounts that are wanted and the most that may be used.
PodCondition # One observation of a pod.
  lastProbeTime time # Time it was last checked.
  lastTransitionTime time # Time the status last changed.
  message string # What happened, for people.
  observedGeneration int64 # Generation that the status describes.
  reason string # Why, in one word.
  status! string # What is observed.
  type! string # Kind of it.
PodExtendedResourceClaimStatus # A claim made for extended resources.
  requestMappings! []ContainerExtendedResourceRequest atomic # Which request serves which extended resource.
  resourceClaimName! string # Name of a claim.
PodIP # An address of a pod.
  ip! string # An IP address.
PodResourceClaimStatus # State of a claim of a pod.
  name! string # Name, unique where it is used.
  resourceClaimName string # Name of a claim.
PodStatus # What is observed of a pod.
  allocatedResources map:quantity # Resources set aside for it, by name.
  conditions []PodCondition key=type patch=merge:type # What is observed at present, by type.
  containerStatuses []ContainerStatus atomic # State of each container.
  ephemeralContainerStatuses []ContainerStatus atomic # State of each ephemeral container.
  extendedResourceClaimStatus PodExtendedResourceClaimStatus # Claim made for extended resources.
  hostIP string # Address of the host.
  hostIPs []HostIP atomic patch=merge:ip # Addresses of the host.
  initContainerStatuses []ContainerStatus atomic # State of each init container.
  message string # Why the pod is in this state, for people.
  nodeAllocatableResourceClaimStatuses []NodeAllocatableResourceClaimStatus atomic # Claims that use resources of the node.
  nominatedNodeName string # Node on which others are being removed for this pod.
  observedGeneration int64 # Generation that the status describes.
  phase string # Pending, Running, Succeeded, Failed or Unknown.
  podIP string # Address of the pod.
  podIPs []PodIP key=ip patch=merge:ip # Addresses of the pod.
  qosClass string # Class of service by requests and limits: Guaranteed, Burstable or BestEffort.
  reason string # Why, in one word.
  resize string # State of a resize that is wanted.
  resourceClaimStatuses []PodResourceClaimStatus key=name patch=merge,retainKeys:name # State of the claims of the pod.
  resources ResourceRequirements # Resources in effect for the pod as a whole.
  startTime time # Time the node agent took the pod.
ResourceHealth # State of a device.
  health string # State of the device: Healthy, Unhealthy or Unknown.
  message string # What happened, for people.
  resourceID! string # Identifier of the device.
ResourceStatus # State of the devices of a resource.
  name! string # Name, unique where it is used.
  resources []ResourceHealth key=resourceID # State of each device.
VolumeMountStatus # A volume that is mounted.
  mountPath! string # Path in the container.
  name! string # Name, unique where it is used.
  readOnly bool # Whether nothing can be written.
  recursiveReadOnly string # Whether mounts below are read-only too.
  volumeStatus VolumeStatus # More about the mounted volume.
VolumeStatus # More about a mounted volume.
  image ImageVolumeStatus # Name of the image.
"""
