"""Types shared by every kind: metadata, selectors, options, Status.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.apimachinery.pkg.apis.meta.v1
Condition
  lastTransitionTime! time
  message! string
  observedGeneration int64
  reason! string
  status! string
  type! string
DeleteOptions
  apiVersion string
  dryRun []string atomic
  gracePeriodSeconds int64
  ignoreStoreReadErrorWithClusterBreakingPotential bool
  kind string
  orphanDependents bool
  preconditions Preconditions
  propagationPolicy string
LabelSelector atomic
  matchExpressions []LabelSelectorRequirement atomic
  matchLabels map:string
LabelSelectorRequirement
  key! string
  operator! string
  values []string atomic
ListMeta
  continue string
  remainingItemCount int64
  resourceVersion string
  selfLink string
  shardInfo ShardInfo
ManagedFieldsEntry
  apiVersion string
  fieldsType string
  fieldsV1 any
  manager string
  operation string
  subresource string
  time time
ObjectMeta
  annotations map:string
  creationTimestamp time
  deletionGracePeriodSeconds int64
  deletionTimestamp time
  finalizers []string set patch=merge
  generateName string
  generation int64
  labels map:string
  managedFields []ManagedFieldsEntry atomic
  name string
  namespace string
  ownerReferences []OwnerReference key=uid patch=merge:uid
  resourceVersion string
  selfLink string
  uid string
OwnerReference atomic
  apiVersion! string
  blockOwnerDeletion bool
  controller bool
  kind! string
  name! string
  uid! string
Preconditions
  resourceVersion string
  uid string
ShardInfo
  selector! string
Status
  apiVersion string
  code int32
  details StatusDetails
  kind string
  message string
  metadata ListMeta
  reason string
  status string
StatusCause
  field string
  message string
  reason string
StatusDetails
  causes []StatusCause atomic
  group string
  kind string
  name string
  retryAfterSeconds int32
  uid string
"""
