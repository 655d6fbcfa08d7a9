"""Persistent volumes, claims, storage classes.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.core.v1
AzureFilePersistentVolumeSource
  readOnly bool
  secretName! string
  secretNamespace string
  shareName! string
CSIPersistentVolumeSource
  controllerExpandSecretRef SecretReference
  controllerPublishSecretRef SecretReference
  driver! string
  fsType string
  nodeExpandSecretRef SecretReference
  nodePublishSecretRef SecretReference
  nodeStageSecretRef SecretReference
  readOnly bool
  volumeAttributes map:string
  volumeHandle! string
CephFSPersistentVolumeSource
  monitors! []string atomic
  path string
  readOnly bool
  secretFile string
  secretRef SecretReference
  user string
CinderPersistentVolumeSource
  fsType string
  readOnly bool
  secretRef SecretReference
  volumeID! string
FlexPersistentVolumeSource
  driver! string
  fsType string
  options map:string
  readOnly bool
  secretRef SecretReference
GlusterfsPersistentVolumeSource
  endpoints! string
  endpointsNamespace string
  path! string
  readOnly bool
ISCSIPersistentVolumeSource
  chapAuthDiscovery bool
  chapAuthSession bool
  fsType string
  initiatorName string
  iqn! string
  iscsiInterface string default="default"
  lun! int32
  portals []string atomic
  readOnly bool
  secretRef SecretReference
  targetPortal! string
LocalVolumeSource
  fsType string
  path! string
ModifyVolumeStatus
  status! string
  targetVolumeAttributesClassName string
PersistentVolume
  apiVersion string
  kind string
  metadata ObjectMeta
  spec PersistentVolumeSpec
  status PersistentVolumeStatus
PersistentVolumeClaim
  apiVersion string
  kind string
  metadata ObjectMeta
  spec PersistentVolumeClaimSpec
  status PersistentVolumeClaimStatus
PersistentVolumeClaimCondition
  lastProbeTime time
  lastTransitionTime time
  message string
  reason string
  status! string
  type! string
PersistentVolumeClaimSpec
  accessModes []string atomic
  dataSource TypedLocalObjectReference
  dataSourceRef TypedObjectReference
  resources VolumeResourceRequirements
  selector LabelSelector
  storageClassName string
  volumeAttributesClassName string
  volumeMode string default="Filesystem"
  volumeName string
PersistentVolumeClaimStatus
  accessModes []string atomic
  allocatedResourceStatuses map:string map-granular
  allocatedResources map:quantity
  capacity map:quantity
  conditions []PersistentVolumeClaimCondition key=type patch=merge:type
  currentVolumeAttributesClassName string
  modifyVolumeStatus ModifyVolumeStatus
  phase string
PersistentVolumeClaimTemplate
  metadata ObjectMeta
  spec! PersistentVolumeClaimSpec
PersistentVolumeSpec
  accessModes []string atomic
  awsElasticBlockStore AWSElasticBlockStoreVolumeSource
  azureDisk AzureDiskVolumeSource
  azureFile AzureFilePersistentVolumeSource
  capacity map:quantity
  cephfs CephFSPersistentVolumeSource
  cinder CinderPersistentVolumeSource
  claimRef ObjectReference map-granular
  csi CSIPersistentVolumeSource
  fc FCVolumeSource
  flexVolume FlexPersistentVolumeSource
  flocker FlockerVolumeSource
  gcePersistentDisk GCEPersistentDiskVolumeSource
  glusterfs GlusterfsPersistentVolumeSource
  hostPath HostPathVolumeSource
  iscsi ISCSIPersistentVolumeSource
  local LocalVolumeSource
  mountOptions []string atomic
  nfs NFSVolumeSource
  nodeAffinity VolumeNodeAffinity
  persistentVolumeReclaimPolicy string default="Retain"
  photonPersistentDisk PhotonPersistentDiskVolumeSource
  portworxVolume PortworxVolumeSource
  quobyte QuobyteVolumeSource
  rbd RBDPersistentVolumeSource
  scaleIO ScaleIOPersistentVolumeSource
  storageClassName string
  storageos StorageOSPersistentVolumeSource
  volumeAttributesClassName string
  volumeMode string default="Filesystem"
  vsphereVolume VsphereVirtualDiskVolumeSource
PersistentVolumeStatus
  lastPhaseTransitionTime time
  message string
  phase string
  reason string
RBDPersistentVolumeSource
  fsType string
  image! string
  keyring string default="/etc/ceph/keyring"
  monitors! []string atomic
  pool string default="rbd"
  readOnly bool
  secretRef SecretReference
  user string default="admin"
ScaleIOPersistentVolumeSource
  fsType string default="xfs"
  gateway! string
  protectionDomain string
  readOnly bool
  secretRef! SecretReference
  sslEnabled bool
  storageMode string default="ThinProvisioned"
  storagePool string
  system! string
  volumeName string
SecretReference atomic
  name string
  namespace string
StorageOSPersistentVolumeSource
  fsType string
  readOnly bool
  secretRef ObjectReference
  volumeName string
  volumeNamespace string
TopologySelectorLabelRequirement
  key! string
  values! []string atomic
TopologySelectorTerm atomic
  matchLabelExpressions []TopologySelectorLabelRequirement atomic
TypedLocalObjectReference atomic
  apiGroup string
  kind! string
  name! string
TypedObjectReference
  apiGroup string
  kind! string
  name! string
  namespace string
VolumeNodeAffinity
  required NodeSelector
VolumeResourceRequirements
  limits map:quantity
  requests map:quantity
@package io.k8s.api.storage.v1
StorageClass
  allowVolumeExpansion bool
  allowedTopologies []TopologySelectorTerm atomic
  apiVersion string
  kind string
  metadata ObjectMeta
  mountOptions []string atomic
  parameters map:string
  provisioner! string
  reclaimPolicy string default="Delete"
  volumeBindingMode string default="Immediate"
"""
