"""Persistent volumes, claims, storage classes.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.core.v1
AzureFilePersistentVolumeSource # An Azure file share.
  readOnly bool # Whether nothing can be written.
  secretName! string # Name of the Secret.
  secretNamespace string # Namespace of the Secret.
  shareName! string # Name of the share.
CSIPersistentVolumeSource # A volume of a CSI driver.
  controllerExpandSecretRef SecretReference # Secret for the driver when it grows the volume.
  controllerPublishSecretRef SecretReference # Secret for the driver when it attaches the volume.
  driver! string # Name of the driver that serves the volume.
  fsType string # File system type, such as ext4.
  nodeExpandSecretRef SecretReference # Secret for the driver when it grows the volume on the node.
  nodePublishSecretRef SecretReference # Secret for the driver when it publishes the volume.
  nodeStageSecretRef SecretReference # Secret for the driver when it stages the volume.
  readOnly bool # Whether nothing can be written.
  volumeAttributes map:string # Settings for the driver.
  volumeHandle! string # Identifier of the volume for the driver.
CephFSPersistentVolumeSource # A CephFS mount.
  monitors! []string atomic # Addresses of the monitors.
  path string # A path.
  readOnly bool # Whether nothing can be written.
  secretFile string # Path of the secret on the node.
  secretRef SecretReference # Secret with the credentials.
  user string # Name of the user.
CinderPersistentVolumeSource # An OpenStack disk.
  fsType string # File system type, such as ext4.
  readOnly bool # Whether nothing can be written.
  secretRef SecretReference # Secret with the credentials.
  volumeID! string # Identifier of the volume.
FlexPersistentVolumeSource # A volume of an exec driver.
  driver! string # Name of the driver that serves the volume.
  fsType string # File system type, such as ext4.
  options map:string # Further options.
  readOnly bool # Whether nothing can be written.
  secretRef SecretReference # Secret with the credentials.
GlusterfsPersistentVolumeSource # A Gluster volume.
  endpoints! string # Name of the endpoints.
  endpointsNamespace string # Namespace of the endpoints.
  path! string # A path.
  readOnly bool # Whether nothing can be written.
ISCSIPersistentVolumeSource # An iSCSI disk.
  chapAuthDiscovery bool # Whether discovery is authenticated by CHAP.
  chapAuthSession bool # Whether the session is authenticated by CHAP.
  fsType string # File system type, such as ext4.
  initiatorName string # Name of the initiator.
  iqn! string # Name of the target.
  iscsiInterface string default="default" # Interface the initiator uses.
  lun! int32 # Number of the logical unit.
  portals []string atomic # Addresses of further portals.
  readOnly bool # Whether nothing can be written.
  secretRef SecretReference # Secret with the credentials.
  targetPortal! string # Address of the portal.
LocalVolumeSource # A disk or directory of one node.
  fsType string # File system type, such as ext4.
  path! string # Path on the node.
ModifyVolumeStatus # State of a change of attributes.
  status! string # What is observed.
  targetVolumeAttributesClassName string # Attributes class being changed to.
PersistentVolume # A piece of storage.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec PersistentVolumeSpec # Kind and size of the storage.
  status PersistentVolumeStatus # Whether it is bound.
PersistentVolumeClaim # A request for storage.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec PersistentVolumeClaimSpec # Which storage is wanted.
  status PersistentVolumeClaimStatus # What was obtained.
PersistentVolumeClaimCondition # One observation of a claim.
  lastProbeTime time # Time it was last checked.
  lastTransitionTime time # Time the status last changed.
  message string # What happened, for people.
  reason string # Why, in one word.
  status! string # What is observed.
  type! string # Kind of it.
PersistentVolumeClaimSpec # Which storage a claim wants.
  accessModes []string atomic # Ways the volume may be mounted: ReadWriteOnce, ReadOnlyMany, ReadWriteMany, ReadWriteOncePod.
  dataSource TypedLocalObjectReference # What the volume is filled from: a claim or a snapshot.
  dataSourceRef TypedObjectReference # What the volume is filled from: any kind that a populator serves.
  resources VolumeResourceRequirements # Least and most storage.
  selector LabelSelector # Selects volumes by label.
  storageClassName string # Storage class; empty for none.
  volumeAttributesClassName string # Attributes class of the volume.
  volumeMode string default="Filesystem" # Filesystem or Block.
  volumeName string # Volume the claim is bound to.
PersistentVolumeClaimStatus # What a claim has obtained.
  accessModes []string atomic # Ways the volume may be mounted: ReadWriteOnce, ReadOnlyMany, ReadWriteMany, ReadWriteOncePod.
  allocatedResourceStatuses map:string map-granular # State of a running resize, by resource.
  allocatedResources map:quantity # Resources set aside for it, by name.
  capacity map:quantity # Total resources, by name.
  conditions []PersistentVolumeClaimCondition key=type patch=merge:type # What is observed at present, by type.
  currentVolumeAttributesClassName string # Attributes class in effect.
  modifyVolumeStatus ModifyVolumeStatus # State of a change of attributes.
  phase string # Pending, Bound or Lost.
PersistentVolumeClaimTemplate # A claim to make.
  metadata ObjectMeta # Labels and annotations of the claim.
  spec! PersistentVolumeClaimSpec # What the claim wants.
PersistentVolumeSpec # Kind and size of a volume.
  accessModes []string atomic # Ways the volume may be mounted: ReadWriteOnce, ReadOnlyMany, ReadWriteMany, ReadWriteOncePod.
  awsElasticBlockStore AWSElasticBlockStoreVolumeSource # An AWS disk; served by its CSI driver.
  azureDisk AzureDiskVolumeSource # An Azure disk; served by its CSI driver.
  azureFile AzureFilePersistentVolumeSource # An Azure file share; served by its CSI driver.
  capacity map:quantity # Total resources, by name.
  cephfs CephFSPersistentVolumeSource # A CephFS mount; served by its CSI driver.
  cinder CinderPersistentVolumeSource # An OpenStack disk; served by its CSI driver.
  claimRef ObjectReference map-granular # Claim the volume is bound to.
  csi CSIPersistentVolumeSource # A volume of a CSI driver.
  fc FCVolumeSource # A Fibre Channel volume.
  flexVolume FlexPersistentVolumeSource # A volume of an exec driver; deprecated.
  flocker FlockerVolumeSource # A Flocker volume; no longer supported.
  gcePersistentDisk GCEPersistentDiskVolumeSource # A Google disk; served by its CSI driver.
  glusterfs GlusterfsPersistentVolumeSource # A Gluster volume; no longer supported.
  hostPath HostPathVolumeSource # A file or directory of the node.
  iscsi ISCSIPersistentVolumeSource # An iSCSI disk.
  local LocalVolumeSource # A disk or directory of one node.
  mountOptions []string atomic # Options of the mount.
  nfs NFSVolumeSource # A directory of an NFS server.
  nodeAffinity VolumeNodeAffinity # Nodes that can reach the volume.
  persistentVolumeReclaimPolicy string default="Retain" # What happens to the volume after its claim: Retain, Delete or Recycle.
  photonPersistentDisk PhotonPersistentDiskVolumeSource # A Photon disk; no longer supported.
  portworxVolume PortworxVolumeSource # A Portworx volume; served by its CSI driver.
  quobyte QuobyteVolumeSource # A Quobyte volume; no longer supported.
  rbd RBDPersistentVolumeSource # A Ceph block device; served by its CSI driver.
  scaleIO ScaleIOPersistentVolumeSource # A ScaleIO volume; no longer supported.
  storageClassName string # Storage class; empty for none.
  storageos StorageOSPersistentVolumeSource # A StorageOS volume; no longer supported.
  volumeAttributesClassName string # Attributes class of the volume.
  volumeMode string default="Filesystem" # Filesystem or Block.
  vsphereVolume VsphereVirtualDiskVolumeSource # A vSphere disk; served by its CSI driver.
PersistentVolumeStatus # Whether a volume is bound.
  lastPhaseTransitionTime time # Time the phase last changed.
  message string # What happened, for people.
  phase string # Pending, Available, Bound, Released or Failed.
  reason string # Why, in one word.
RBDPersistentVolumeSource # A Ceph block device.
  fsType string # File system type, such as ext4.
  image! string # Name of the image.
  keyring string default="/etc/ceph/keyring" # Path of the key ring.
  monitors! []string atomic # Addresses of the monitors.
  pool string default="rbd" # Name of the pool.
  readOnly bool # Whether nothing can be written.
  secretRef SecretReference # Secret with the credentials.
  user string default="admin" # Name of the user.
ScaleIOPersistentVolumeSource # A ScaleIO volume.
  fsType string default="xfs" # File system type, such as ext4.
  gateway! string # Address of the storage gateway.
  protectionDomain string # Name of the protection domain.
  readOnly bool # Whether nothing can be written.
  secretRef! SecretReference # Secret with the credentials.
  sslEnabled bool # Whether the gateway is spoken to over TLS.
  storageMode string default="ThinProvisioned" # Thin or thick provisioning.
  storagePool string # Name of the storage pool.
  system! string # Name of the storage system.
  volumeName string # Name of the volume.
SecretReference atomic # Points at a Secret.
  name string # Name, unique where it is used.
  namespace string # Namespace of the object.
StorageOSPersistentVolumeSource # A StorageOS volume.
  fsType string # File system type, such as ext4.
  readOnly bool # Whether nothing can be written.
  secretRef ObjectReference # Secret with the credentials.
  volumeName string # Name of the volume.
  volumeNamespace string # Scope of the volume name.
TopologySelectorLabelRequirement # Values a label may have.
  key! string # Name of the key.
  values! []string atomic # Values to compare with.
TopologySelectorTerm atomic # Labels of places.
  matchLabelExpressions []TopologySelectorLabelRequirement atomic # Conditions, all of which must hold.
TypedLocalObjectReference atomic # Points at an object of any kind in the same namespace.
  apiGroup string # Group of the object that is referred to; empty is the core group.
  kind! string # What this object is.
  name! string # Name, unique where it is used.
TypedObjectReference # Points at an object of any kind.
  apiGroup string # Group of the object that is referred to; empty is the core group.
  kind! string # What this object is.
  name! string # Name, unique where it is used.
  namespace string # Namespace of the object.
VolumeNodeAffinity # Nodes that can reach a volume.
  required NodeSelector # What a node must fulfil.
VolumeResourceRequirements # Least and most storage.
  limits map:quantity # Most that may be used, by resource.
  requests map:quantity # Least that is set aside, by resource.
@package io.k8s.api.storage.v1
StorageClass # A way to make volumes on demand.
  allowVolumeExpansion bool # Whether claims of this class may grow.
  allowedTopologies []TopologySelectorTerm atomic # Where volumes of this class can be made.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  mountOptions []string atomic # Options of the mount.
  parameters map:string # Settings for the provisioner.
  provisioner! string # Who makes the volumes.
  reclaimPolicy string default="Delete" # What happens to volumes after their claim: Delete or Retain.
  volumeBindingMode string default="Immediate" # When a volume is made and bound: Immediate or WaitForFirstConsumer.
"""
