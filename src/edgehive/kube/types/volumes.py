"""Volumes of a pod.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.core.v1
AWSElasticBlockStoreVolumeSource # An AWS disk.
  fsType string # File system type, such as ext4.
  partition int32 # Partition; 0 or absent for the whole disk.
  readOnly bool # Whether nothing can be written.
  volumeID! string # Identifier of the volume.
AzureDiskVolumeSource # An Azure disk.
  cachingMode string default="ReadWrite" # Host caching: None, ReadOnly or ReadWrite.
  diskName! string # Name of the disk.
  diskURI! string # Address of the disk.
  fsType string default="ext4" # File system type, such as ext4.
  kind string default="Shared" # Shared, Dedicated or Managed.
  readOnly bool default=false # Whether nothing can be written.
AzureFileVolumeSource # An Azure file share.
  readOnly bool # Whether nothing can be written.
  secretName! string # Name of the Secret.
  shareName! string # Name of the share.
CSIVolumeSource # A volume of a CSI driver.
  driver! string # Name of the driver that serves the volume.
  fsType string # File system type, such as ext4.
  nodePublishSecretRef LocalObjectReference # Secret for the driver when it publishes the volume.
  readOnly bool # Whether nothing can be written.
  volumeAttributes map:string # Settings for the driver.
CephFSVolumeSource # A CephFS mount.
  monitors! []string atomic # Addresses of the monitors.
  path string # A path.
  readOnly bool # Whether nothing can be written.
  secretFile string # Path of the secret on the node.
  secretRef LocalObjectReference # Secret with the credentials.
  user string # Name of the user.
CinderVolumeSource # An OpenStack disk.
  fsType string # File system type, such as ext4.
  readOnly bool # Whether nothing can be written.
  secretRef LocalObjectReference # Secret with the credentials.
  volumeID! string # Identifier of the volume.
ClusterTrustBundleProjection # Certificates of a trust bundle, in one file.
  labelSelector LabelSelector # Selects objects by their labels.
  name string # Name, unique where it is used.
  optional bool # Whether it may be missing.
  path! string # A path.
  signerName string # Who signs the certificates.
ConfigMapProjection # Files from the keys of a ConfigMap.
  items []KeyToPath atomic # Keys to take, and the files they go to; all keys when absent.
  name string # Name, unique where it is used.
  optional bool # Whether it may be missing.
ConfigMapVolumeSource # Files from the keys of a ConfigMap.
  defaultMode int32 default=420 # Permission bits of the files, in decimal; 420 is 0644.
  items []KeyToPath atomic # Keys to take, and the files they go to; all keys when absent.
  name string # Name, unique where it is used.
  optional bool # Whether it may be missing.
DownwardAPIProjection # Files with fields of the pod.
  items []DownwardAPIVolumeFile atomic # The files.
DownwardAPIVolumeFile # A file with a field of the pod.
  fieldRef ObjectFieldSelector # A field of the pod.
  mode int32 # Permission bits of the file, in decimal.
  path! string # Path of the file, relative and without dots.
  resourceFieldRef ResourceFieldSelector # A resource of a container.
DownwardAPIVolumeSource # Files with fields of the pod.
  defaultMode int32 default=420 # Permission bits of the files, in decimal; 420 is 0644.
  items []DownwardAPIVolumeFile atomic # The files.
EmptyDirVolumeSource # An empty directory that lives as long as the pod.
  medium string # Where it is kept: empty for disk, Memory for tmpfs.
  sizeLimit quantity # Most it may hold.
EphemeralVolumeSource # A claim that lives as long as the pod.
  volumeClaimTemplate PersistentVolumeClaimTemplate # Claim to make.
FCVolumeSource # A Fibre Channel volume.
  fsType string # File system type, such as ext4.
  lun int32 # Number of the logical unit.
  readOnly bool # Whether nothing can be written.
  targetWWNs []string atomic # World wide names of the targets.
  wwids []string atomic # World wide identifiers of the volume.
FlexVolumeSource # A volume of an exec driver.
  driver! string # Name of the driver that serves the volume.
  fsType string # File system type, such as ext4.
  options map:string # Further options.
  readOnly bool # Whether nothing can be written.
  secretRef LocalObjectReference # Secret with the credentials.
FlockerVolumeSource # A Flocker volume.
  datasetName string # Name of the data set.
  datasetUUID string # Identifier of the data set.
GCEPersistentDiskVolumeSource # A Google disk.
  fsType string # File system type, such as ext4.
  partition int32 # Partition; 0 or absent for the whole disk.
  pdName! string # Name of the disk.
  readOnly bool # Whether nothing can be written.
GitRepoVolumeSource # A clone of a git repository.
  directory string # Directory the repository goes to.
  repository! string # Address of the repository.
  revision string # Commit to check out.
GlusterfsVolumeSource # A Gluster volume.
  endpoints! string # Name of the endpoints.
  path! string # A path.
  readOnly bool # Whether nothing can be written.
HostPathVolumeSource # A file or directory of the node.
  path! string # Path on the node.
  type string default="" # What must be there, or is made: Directory, DirectoryOrCreate, File, FileOrCreate, Socket, CharDevice, BlockDevice.
ISCSIVolumeSource # An iSCSI disk.
  chapAuthDiscovery bool # Whether discovery is authenticated by CHAP.
  chapAuthSession bool # Whether the session is authenticated by CHAP.
  fsType string # File system type, such as ext4.
  initiatorName string # Name of the initiator.
  iqn! string # Name of the target.
  iscsiInterface string default="default" # Interface the initiator uses.
  lun! int32 # Number of the logical unit.
  portals []string atomic # Addresses of further portals.
  readOnly bool # Whether nothing can be written.
  secretRef LocalObjectReference # Secret with the credentials.
  targetPortal! string # Address of the portal.
ImageVolumeSource # Files of an image.
  pullPolicy string # When to pull: Always, IfNotPresent or Never.
  reference string # Reference of the image.
KeyToPath # A key, and the file it goes to.
  key! string # Name of the key.
  mode int32 # Permission bits of the file, in decimal.
  path! string # Path of the file, relative and without dots.
NFSVolumeSource # A directory of an NFS server.
  path! string # Directory the server exports.
  readOnly bool # Whether nothing can be written.
  server! string # Host of the server.
PersistentVolumeClaimVolumeSource # A volume that a claim is bound to.
  claimName! string # Claim in the pod's namespace.
  readOnly bool # Whether nothing can be written.
PhotonPersistentDiskVolumeSource # A Photon disk.
  fsType string # File system type, such as ext4.
  pdID! string # Identifier of the disk.
PodCertificateProjection # A certificate for the pod.
  certificateChainPath string # File for the certificate chain.
  credentialBundlePath string # File for key and certificates together.
  keyPath string # File for the private key.
  keyType! string # Kind of key to make.
  maxExpirationSeconds int32 # Longest life of the certificate.
  signerName! string # Who signs the certificates.
  userAnnotations map:string # Further data for the signer.
PortworxVolumeSource # A Portworx volume.
  fsType string # File system type, such as ext4.
  readOnly bool # Whether nothing can be written.
  volumeID! string # Identifier of the volume.
ProjectedVolumeSource # Several sources in one directory.
  defaultMode int32 default=420 # Permission bits of the files, in decimal; 420 is 0644.
  sources []VolumeProjection atomic # What is put together.
QuobyteVolumeSource # A Quobyte volume.
  group string # Group to map access to.
  readOnly bool # Whether nothing can be written.
  registry! string # Addresses of the registries.
  tenant string # Tenant the volume belongs to.
  user string # Name of the user.
  volume! string # Name of the volume.
RBDVolumeSource # A Ceph block device.
  fsType string # File system type, such as ext4.
  image! string # Name of the image.
  keyring string default="/etc/ceph/keyring" # Path of the key ring.
  monitors! []string atomic # Addresses of the monitors.
  pool string default="rbd" # Name of the pool.
  readOnly bool # Whether nothing can be written.
  secretRef LocalObjectReference # Secret with the credentials.
  user string default="admin" # Name of the user.
ScaleIOVolumeSource # A ScaleIO volume.
  fsType string default="xfs" # File system type, such as ext4.
  gateway! string # Address of the storage gateway.
  protectionDomain string # Name of the protection domain.
  readOnly bool # Whether nothing can be written.
  secretRef! LocalObjectReference # Secret with the credentials.
  sslEnabled bool # Whether the gateway is spoken to over TLS.
  storageMode string default="ThinProvisioned" # Thin or thick provisioning.
  storagePool string # Name of the storage pool.
  system! string # Name of the storage system.
  volumeName string # Name of the volume.
SecretProjection # Files from the keys of a Secret.
  items []KeyToPath atomic # Keys to take, and the files they go to; all keys when absent.
  name string # Name, unique where it is used.
  optional bool # Whether it may be missing.
SecretVolumeSource # Files from the keys of a Secret.
  defaultMode int32 default=420 # Permission bits of the files, in decimal; 420 is 0644.
  items []KeyToPath atomic # Keys to take, and the files they go to; all keys when absent.
  optional bool # Whether it may be missing.
  secretName string # Name of the Secret.
ServiceAccountTokenProjection # A token of the service account, in one file.
  audience string # Whom the token is meant for; the API server when empty.
  expirationSeconds int64 default=3600 # Seconds the token should be valid; at least 600.
  path! string # Path of the file, relative.
StorageOSVolumeSource # A StorageOS volume.
  fsType string # File system type, such as ext4.
  readOnly bool # Whether nothing can be written.
  secretRef LocalObjectReference # Secret with the credentials.
  volumeName string # Name of the volume.
  volumeNamespace string # Scope of the volume name.
Volume # A volume of a pod; exactly one kind may be chosen.
  awsElasticBlockStore AWSElasticBlockStoreVolumeSource # An AWS disk; served by its CSI driver.
  azureDisk AzureDiskVolumeSource # An Azure disk; served by its CSI driver.
  azureFile AzureFileVolumeSource # An Azure file share; served by its CSI driver.
  cephfs CephFSVolumeSource # A CephFS mount; served by its CSI driver.
  cinder CinderVolumeSource # An OpenStack disk; served by its CSI driver.
  configMap ConfigMapVolumeSource # Files from the keys of a ConfigMap.
  csi CSIVolumeSource # A volume of a CSI driver.
  downwardAPI DownwardAPIVolumeSource # Files with fields of the pod.
  emptyDir EmptyDirVolumeSource # An empty directory that lives as long as the pod.
  ephemeral EphemeralVolumeSource # A claim that lives as long as the pod.
  fc FCVolumeSource # A Fibre Channel volume.
  flexVolume FlexVolumeSource # A volume of an exec driver; deprecated.
  flocker FlockerVolumeSource # A Flocker volume; no longer supported.
  gcePersistentDisk GCEPersistentDiskVolumeSource # A Google disk; served by its CSI driver.
  gitRepo GitRepoVolumeSource # A clone of a git repository; deprecated.
  glusterfs GlusterfsVolumeSource # A Gluster volume; no longer supported.
  hostPath HostPathVolumeSource # A file or directory of the node.
  image ImageVolumeSource # Files of an image, read-only.
  iscsi ISCSIVolumeSource # An iSCSI disk.
  name! string # Name, unique in the pod.
  nfs NFSVolumeSource # A directory of an NFS server.
  persistentVolumeClaim PersistentVolumeClaimVolumeSource # A volume that a claim is bound to.
  photonPersistentDisk PhotonPersistentDiskVolumeSource # A Photon disk; no longer supported.
  portworxVolume PortworxVolumeSource # A Portworx volume; served by its CSI driver.
  projected ProjectedVolumeSource # Several sources in one directory.
  quobyte QuobyteVolumeSource # A Quobyte volume; no longer supported.
  rbd RBDVolumeSource # A Ceph block device; served by its CSI driver.
  scaleIO ScaleIOVolumeSource # A ScaleIO volume; no longer supported.
  secret SecretVolumeSource # Files from the keys of a Secret.
  storageos StorageOSVolumeSource # A StorageOS volume; no longer supported.
  vsphereVolume VsphereVirtualDiskVolumeSource # A vSphere disk; served by its CSI driver.
VolumeProjection # One source of a projected volume.
  clusterTrustBundle ClusterTrustBundleProjection # Certificates of a trust bundle.
  configMap ConfigMapProjection # Files from the keys of a ConfigMap.
  downwardAPI DownwardAPIProjection # Files with fields of the pod.
  podCertificate PodCertificateProjection # A certificate for the pod.
  secret SecretProjection # Files from the keys of a Secret.
  serviceAccountToken ServiceAccountTokenProjection # A token of the service account.
VsphereVirtualDiskVolumeSource # A vSphere disk.
  fsType string # File system type, such as ext4.
  storagePolicyID string # Identifier of the storage policy.
  storagePolicyName string # Name of the storage policy.
  volumePath! string # Path of the volume.
"""
