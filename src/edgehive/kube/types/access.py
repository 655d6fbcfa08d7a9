"""Roles and bindings (RBAC), certificate requests, runtime classes.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.rbac.v1
AggregationRule # Makes a role of the rules of others.
  clusterRoleSelectors []LabelSelector atomic # Selects the roles whose rules are taken.
ClusterRole # Rules that can be granted anywhere, or everywhere at once.
  aggregationRule AggregationRule # Selects roles whose rules this one has.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  rules []PolicyRule atomic # What the role allows.
ClusterRoleBinding # Grants a cluster role in every namespace and for what has none.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  roleRef! RoleRef # The role that is granted; cannot be changed.
  subjects []Subject atomic # To whom.
PolicyRule # Verbs that are allowed on some resources or paths.
  apiGroups []string atomic # API groups of the resources; * for all, "" for the core group.
  nonResourceURLs []string atomic # Paths that are no resources; may end in *.
  resourceNames []string atomic # Objects the rule is limited to; empty for all.
  resources []string atomic # Resources, such as pods or pods/log; * for all.
  verbs! []string atomic # Verbs, such as get; * for all.
Role # Rules that can be granted in one namespace.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  rules []PolicyRule atomic # What the role allows.
RoleBinding # Grants a role in one namespace.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  roleRef! RoleRef # The role that is granted; cannot be changed.
  subjects []Subject atomic # To whom.
RoleRef atomic # Names a role.
  apiGroup! string # rbac.authorization.k8s.io.
  kind! string # Role or ClusterRole.
  name! string # Name of the role.
Subject atomic # A user, a group or a service account.
  apiGroup string # Empty for service accounts, else rbac.authorization.k8s.io.
  kind! string # User, Group or ServiceAccount.
  name! string # Name of it.
  namespace string # Namespace of a service account.
@package io.k8s.api.certificates.v1
CertificateSigningRequest # A request for a certificate.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec! CertificateSigningRequestSpec # What is asked for, and by whom; cannot be changed.
  status CertificateSigningRequestStatus # Whether it is approved, and the certificate.
CertificateSigningRequestCondition # One thing that was decided about a request.
  lastTransitionTime time # When the status last changed.
  lastUpdateTime time # When it was last written.
  message string # Explanation for people.
  reason string # Explanation in one word.
  status! string # True, False or Unknown.
  type! string # Approved, Denied or Failed.
CertificateSigningRequestSpec # What is asked for.
  expirationSeconds int32 # How long the certificate should be good.
  extra map:[]string # Further facts about who asks; set by the server.
  groups []string atomic # Groups of who asks; set by the server.
  request! bytes # The request as PEM.
  signerName! string # Who is to sign, such as kubernetes.io/kubelet-serving.
  uid string # UID of who asks; set by the server.
  usages []string atomic # What the key is for.
  username string # Who asks; set by the server.
CertificateSigningRequestStatus # What came of a request.
  certificate bytes # The certificate as PEM, once it is signed.
  conditions []CertificateSigningRequestCondition key=type # What was decided.
@package io.k8s.api.node.v1
Overhead # What running a pod costs beside its containers.
  podFixed map:quantity # Resources of each pod.
RuntimeClass # A way of running containers that pods can ask for.
  apiVersion string # Group and version of this object.
  handler! string # What the container runtime calls it; cannot be changed.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  overhead Overhead # What it costs beside the containers.
  scheduling Scheduling # Nodes that support it.
Scheduling # Nodes that support a runtime class.
  nodeSelector map:string map-atomic # Labels that such nodes have.
  tolerations []Toleration atomic # Added to the pods of the class.
@package io.k8s.api.storage.v1
CSIDriver # What a CSI driver needs of the cluster.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec! CSIDriverSpec # What it needs.
CSIDriverSpec # What a CSI driver needs of the cluster.
  attachRequired bool default=true # Whether volumes are attached before they are mounted.
  fsGroupPolicy string default="ReadWriteOnceWithFSType" # When ownership of the files is changed for a pod.
  nodeAllocatableUpdatePeriodSeconds int64 # How often the number of volumes a node can have is asked for.
  podInfoOnMount bool default=false # Whether the driver is told about the pod.
  requiresRepublish bool default=false # Whether a volume is published again and again.
  seLinuxMount bool default=false # Whether mounts take an SELinux context.
  serviceAccountTokenInSecrets bool # Whether tokens travel among the secrets.
  storageCapacity bool default=false # Whether the scheduler looks at capacity.
  tokenRequests []CSITokenRequest atomic # Service-account tokens the driver wants.
  volumeLifecycleModes []string set default=["Persistent"] # Persistent, Ephemeral.
CSINode # The CSI drivers of one node.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec! CSINodeSpec # The drivers.
CSINodeDriver # A CSI driver on one node.
  allocatable VolumeNodeResources # How many volumes the node can have.
  name! string # Name of the driver.
  nodeID! string # What the driver calls the node.
  topologyKeys []string atomic # Node labels that say where its volumes can be used.
CSINodeSpec # The CSI drivers of one node.
  drivers! []CSINodeDriver key=name patch=merge:name # The drivers.
CSITokenRequest=TokenRequest # A service-account token that a driver wants.
  audience! string # For whom.
  expirationSeconds int64 # How long it is good.
VolumeAttachment # A volume that is, or shall be, attached to a node.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec! VolumeAttachmentSpec # Which volume on which node.
  status VolumeAttachmentStatus # Whether it is.
VolumeAttachmentSource # A volume to attach.
  inlineVolumeSpec PersistentVolumeSpec # The volume itself.
  persistentVolumeName string # Name of the volume.
VolumeAttachmentSpec # Which volume on which node.
  attacher! string # Name of the driver.
  nodeName! string # Name of the node.
  source! VolumeAttachmentSource # The volume.
VolumeAttachmentStatus # Whether a volume is attached.
  attachError VolumeError # Why it could not be attached.
  attached! bool default=false # Whether it is.
  attachmentMetadata map:string # What the driver wants to be told when it is mounted.
  detachError VolumeError # Why it could not be detached.
VolumeError # Why something could not be done.
  errorCode int32 # gRPC status code of the driver.
  message string # What happened, for people.
  time time # When.
VolumeNodeResources # How many volumes a node can have.
  count int32 # Number of volumes.
"""
