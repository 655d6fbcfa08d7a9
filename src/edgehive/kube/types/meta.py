"""Types shared by every kind: metadata, selectors, options, Status.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.apimachinery.pkg.apis.meta.v1
Condition # One observation.
  lastTransitionTime! time # Time the status last changed.
  message! string # What happened, for people.
  observedGeneration int64 # Generation that the status describes.
  reason! string # Why, in one word.
  status! string # What is observed.
  type! string # Kind of it.
DeleteOptions # How something is deleted.
  apiVersion string # Group and version of this object.
  dryRun []string atomic # All: process the request without storing anything.
  gracePeriodSeconds int64 # Seconds the object gets to end; 0 removes it at once.
  ignoreStoreReadErrorWithClusterBreakingPotential bool # Delete even an object that cannot be read from storage.
  kind string # What this object is.
  orphanDependents bool # No longer used; see propagationPolicy.
  preconditions Preconditions # What must hold for the request to be carried out.
  propagationPolicy string # What happens to dependents: Orphan, Background or Foreground.
LabelSelector atomic # Selects objects by labels; all requirements must hold, an empty one selects everything.
  matchExpressions []LabelSelectorRequirement atomic # Conditions, all of which must hold.
  matchLabels map:string # Labels that must have exactly these values.
LabelSelectorRequirement # A condition on labels.
  key! string # Name of the key.
  operator! string # In, NotIn, Exists or DoesNotExist.
  values []string atomic # Values to compare with.
ListMeta # Version of a list, and how to continue it.
  continue string # Token that fetches the next page.
  remainingItemCount int64 # How many items are left after this page, when known.
  resourceVersion string # Changes with every write of the object; compare for equality only.
  selfLink string # No longer set.
  shardInfo ShardInfo # Part of a list that was asked for in parts.
ManagedFieldsEntry # Fields that somebody owns.
  apiVersion string # Group and version of this object.
  fieldsType string # Form of fieldsV1; always FieldsV1.
  fieldsV1 any # Fields that are owned, as a tree of paths.
  manager string # Name of who owns the fields.
  operation string # How the fields came to be owned: Apply or Update.
  subresource string # Subresource the fields were written through; empty for the object itself.
  time time # Time of the last change.
ObjectMeta # What every object has: its name, labels, owners and history.
  annotations map:string # Free texts attached by tools, not used for selection.
  creationTimestamp time # Time the object was created; set by the server.
  deletionGracePeriodSeconds int64 # Seconds the object gets to end; set by the server.
  deletionTimestamp time # Time by which the object will be gone; set by the server.
  finalizers []string set patch=merge # What must happen before the object is removed; each entry is taken out by its controller.
  generateName string # Start of the name, to which the server adds random characters.
  generation int64 # Counts changes of the desired state; set by the server.
  labels map:string # Names and values by which objects are selected.
  managedFields []ManagedFieldsEntry atomic # Who owns which fields; kept by the server.
  name string # Name, unique among objects of the kind in the namespace; cannot be changed.
  namespace string # Namespace the object lives in; cannot be changed.
  ownerReferences []OwnerReference key=uid patch=merge:uid # Objects this one depends on; when all are gone it is deleted.
  resourceVersion string # Changes with every write of the object; compare for equality only.
  selfLink string # No longer set.
  uid string # Identifier, unique over all time; set by the server.
OwnerReference atomic # An object this one depends on.
  apiVersion! string # Group and version of this object.
  blockOwnerDeletion bool # Whether the owner stays until this object is gone, when deleted in the foreground.
  controller bool # Whether this owner is the managing controller.
  kind! string # What this object is.
  name! string # Name, unique where it is used.
  uid! string # Identifier, unique over all time; set by the server.
Preconditions # What must hold for a request to be carried out.
  resourceVersion string # The object must have this version.
  uid string # The object must have this identifier.
ShardInfo # Part of a list.
  selector! string # Selects the pods it is about.
Status # Outcome of a request that returns no object.
  apiVersion string # Group and version of this object.
  code int32 # HTTP status code.
  details StatusDetails # More about the failure.
  kind string # What this object is.
  message string # What happened, for people.
  metadata ListMeta # Version of the list.
  reason string # Why it failed, in one word.
  status string # Success or Failure.
StatusCause # One thing that is wrong.
  field string # Path of the field.
  message string # What happened, for people.
  reason string # Why, in one word.
StatusDetails # More about a failure.
  causes []StatusCause atomic # What exactly is wrong, item by item.
  group string # Group of that kind.
  kind string # Kind or resource it is about.
  name string # Name of the object it is about.
  retryAfterSeconds int32 # Seconds after which the request may be tried again.
  uid string # Identifier, unique over all time; set by the server.
"""
