"""Volumes of a pod.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.core.v1
AWSElasticBlockStoreVolumeSource
  fsType string
  partition int32
  readOnly bool
  volumeID! string
AzureDiskVolumeSource
  cachingMode string default="ReadWrite"
  diskName! string
  diskURI! string
  fsType string default="ext4"
  kind string default="Shared"
  readOnly bool default=false
AzureFileVolumeSource
  readOnly bool
  secretName! string
  shareName! string
CSIVolumeSource
  driver! string
  fsType string
  nodePublishSecretRef LocalObjectReference
  readOnly bool
  volumeAttributes map:string
CephFSVolumeSource
  monitors! []string atomic
  path string
  readOnly bool
  secretFile string
  secretRef LocalObjectReference
  user string
CinderVolumeSource
  fsType string
  readOnly bool
  secretRef LocalObjectReference
  volumeID! string
ClusterTrustBundleProjection
  labelSelector LabelSelector
  name string
  optional bool
  path! string
  signerName string
ConfigMapProjection
  items []KeyToPath atomic
  name string
  optional bool
ConfigMapVolumeSource
  defaultMode int32 default=420
  items []KeyToPath atomic
  name string
  optional bool
DownwardAPIProjection
  items []DownwardAPIVolumeFile atomic
DownwardAPIVolumeFile
  fieldRef ObjectFieldSelector
  mode int32
  path! string
  resourceFieldRef ResourceFieldSelector
DownwardAPIVolumeSource
  defaultMode int32 default=420
  items []DownwardAPIVolumeFile atomic
EmptyDirVolumeSource
  medium string
  sizeLimit quantity
EphemeralVolumeSource
  volumeClaimTemplate PersistentVolumeClaimTemplate
FCVolumeSource
  fsType string
  lun int32
  readOnly bool
  targetWWNs []string atomic
  wwids []string atomic
FlexVolumeSource
  driver! string
  fsType string
  options map:string
  readOnly bool
  secretRef LocalObjectReference
FlockerVolumeSource
  datasetName string
  datasetUUID string
GCEPersistentDiskVolumeSource
  fsType string
  partition int32
  pdName! string
  readOnly bool
GitRepoVolumeSource
  directory string
  repository! string
  revision string
GlusterfsVolumeSource
  endpoints! string
  path! string
  readOnly bool
HostPathVolumeSource
  path! string
  type string default=""
ISCSIVolumeSource
  chapAuthDiscovery bool
  chapAuthSession bool
  fsType string
  initiatorName string
  iqn! string
  iscsiInterface string default="default"
  lun! int32
  portals []string atomic
  readOnly bool
  secretRef LocalObjectReference
  targetPortal! string
ImageVolumeSource
  pullPolicy string
  reference string
KeyToPath
  key! string
  mode int32
  path! string
NFSVolumeSource
  path! string
  readOnly bool
  server! string
PersistentVolumeClaimVolumeSource
  claimName! string
  readOnly bool
PhotonPersistentDiskVolumeSource
  fsType string
  pdID! string
PodCertificateProjection
  certificateChainPath string
  credentialBundlePath string
  keyPath string
  keyType! string
  maxExpirationSeconds int32
  signerName! string
  userAnnotations map:string
PortworxVolumeSource
  fsType string
  readOnly bool
  volumeID! string
ProjectedVolumeSource
  defaultMode int32 default=420
  sources []VolumeProjection atomic
QuobyteVolumeSource
  group string
  readOnly bool
  registry! string
  tenant string
  user string
  volume! string
RBDVolumeSource
  fsType string
  image! string
  keyring string default="/etc/ceph/keyring"
  monitors! []string atomic
  pool string default="rbd"
  readOnly bool
  secretRef LocalObjectReference
  user string default="admin"
ScaleIOVolumeSource
  fsType string default="xfs"
  gateway! string
  protectionDomain string
  readOnly bool
  secretRef! LocalObjectReference
  sslEnabled bool
  storageMode string default="ThinProvisioned"
  storagePool string
  system! string
  volumeName string
SecretProjection
  items []KeyToPath atomic
  name string
  optional bool
SecretVolumeSource
  defaultMode int32 default=420
  items []KeyToPath atomic
  optional bool
  secretName string
ServiceAccountTokenProjection
  audience string
  expirationSeconds int64 default=3600
  path! string
StorageOSVolumeSource
  fsType string
  readOnly bool
  secretRef LocalObjectReference
  volumeName string
  volumeNamespace string
Volume
  awsElasticBlockStore AWSElasticBlockStoreVolumeSource
  azureDisk AzureDiskVolumeSource
  azureFile AzureFileVolumeSource
  cephfs CephFSVolumeSource
  cinder CinderVolumeSource
  configMap ConfigMapVolumeSource
  csi CSIVolumeSource
  downwardAPI DownwardAPIVolumeSource
  emptyDir EmptyDirVolumeSource
  ephemeral EphemeralVolumeSource
  fc FCVolumeSource
  flexVolume FlexVolumeSource
  flocker FlockerVolumeSource
  gcePersistentDisk GCEPersistentDiskVolumeSource
  gitRepo GitRepoVolumeSource
  glusterfs GlusterfsVolumeSource
  hostPath HostPathVolumeSource
  image ImageVolumeSource
  iscsi ISCSIVolumeSource
  name! string
  nfs NFSVolumeSource
  persistentVolumeClaim PersistentVolumeClaimVolumeSource
  photonPersistentDisk PhotonPersistentDiskVolumeSource
  portworxVolume PortworxVolumeSource
  projected ProjectedVolumeSource
  quobyte QuobyteVolumeSource
  rbd RBDVolumeSource
  scaleIO ScaleIOVolumeSource
  secret SecretVolumeSource
  storageos StorageOSVolumeSource
  vsphereVolume VsphereVirtualDiskVolumeSource
VolumeProjection
  clusterTrustBundle ClusterTrustBundleProjection
  configMap ConfigMapProjection
  downwardAPI DownwardAPIProjection
  podCertificate PodCertificateProjection
  secret SecretProjection
  serviceAccountToken ServiceAccountTokenProjection
VsphereVirtualDiskVolumeSource
  fsType string
  storagePolicyID string
  storagePolicyName string
  volumePath! string
"""
