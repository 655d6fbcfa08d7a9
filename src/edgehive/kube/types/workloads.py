"""Deployments, replica sets, daemon sets; scale, eviction, token requests.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.apps.v1
DaemonSet # Keeps one pod running on every node, or on every node that is selected.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec DaemonSetSpec # Which pod, on which nodes, and how it is replaced.
  status DaemonSetStatus default={"currentNumberScheduled":0,"desiredNumberScheduled":0,"numberMisscheduled":0,"numberReady":0} # On how many nodes it runs.
DaemonSetCondition # One observation of a daemon set.
  lastTransitionTime time # Time the status last changed.
  message string # What happened, for people.
  reason string # Why, in one word.
  status! string # What is observed.
  type! string # Kind of it.
DaemonSetSpec # What a daemon set should be.
  minReadySeconds int32 # Seconds a pod must be ready to count as available.
  revisionHistoryLimit int32 default=10 # Old revisions to keep for going back; default 10.
  selector! LabelSelector # Selects the pods; must match the template's labels and cannot be changed.
  template! PodTemplateSpec # Pods to make.
  updateStrategy DaemonSetUpdateStrategy default={} # How pods are replaced.
DaemonSetStatus # On how many nodes a daemon set runs.
  collisionCount int32 # Times a name computed from the template was already taken.
  conditions []DaemonSetCondition key=type patch=merge:type # What is observed at present, by type.
  currentNumberScheduled! int32 # Nodes that run the pod and should.
  desiredNumberScheduled! int32 # Nodes that should run the pod.
  numberAvailable int32 # Nodes whose pod is available.
  numberMisscheduled! int32 # Nodes that run the pod and should not.
  numberReady! int32 # Nodes whose pod is ready.
  numberUnavailable int32 # Nodes that should have an available pod and have none.
  observedGeneration int64 # Generation that the status describes.
  updatedNumberScheduled int32 # Nodes whose pod has the present template.
DaemonSetUpdateStrategy # How the pods of a daemon set are replaced.
  rollingUpdate RollingUpdateDaemonSet # Settings of the type RollingUpdate.
  type string default="RollingUpdate" # RollingUpdate or OnDelete; default RollingUpdate.
Deployment # Keeps a number of equal pods running, and replaces them step by step when the template changes.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec DeploymentSpec # How many pods, which, and how they are replaced.
  status DeploymentStatus default={} # How far it has come.
DeploymentCondition # One observation of a deployment.
  lastTransitionTime time # Time the status last changed.
  lastUpdateTime time # Time it was last updated.
  message string # What happened, for people.
  reason string # Why, in one word.
  status! string # What is observed.
  type! string # Kind of it.
DeploymentSpec # What a deployment should be.
  minReadySeconds int32 # Seconds a pod must be ready to count as available.
  paused bool # Whether the roll-out stands still.
  progressDeadlineSeconds int32 default=600 # Seconds without progress after which the roll-out counts as failed; default 600.
  replicas int32 default=1 # Pods wanted; default 1.
  revisionHistoryLimit int32 default=10 # Old revisions to keep for going back; default 10.
  selector! LabelSelector # Selects the pods; must match the template's labels and cannot be changed.
  strategy DeploymentStrategy patch=retainKeys default={} # How old pods are replaced.
  template! PodTemplateSpec # Pods to make.
DeploymentStatus # How far a deployment has come.
  availableReplicas int32 # Pods that have been ready for at least minReadySeconds.
  collisionCount int32 # Times a name computed from the template was already taken.
  conditions []DeploymentCondition key=type patch=merge:type # What is observed at present, by type.
  observedGeneration int64 # Generation that the status describes.
  readyReplicas int32 # Pods that are ready.
  replicas int32 # Pods that exist.
  terminatingReplicas int32 # Pods that are being stopped.
  unavailableReplicas int32 # Pods still missing.
  updatedReplicas int32 # Pods that have the present template.
DeploymentStrategy # How old pods are replaced.
  rollingUpdate RollingUpdateDeployment # Settings of the type RollingUpdate.
  type string default="RollingUpdate" # RollingUpdate or Recreate; default RollingUpdate.
ReplicaSet # Keeps a number of equal pods running.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec ReplicaSetSpec # How many pods, and which.
  status ReplicaSetStatus default={"replicas":0} # How many there are.
ReplicaSetCondition # One observation of a replica set.
  lastTransitionTime time # Time the status last changed.
  message string # What happened, for people.
  reason string # Why, in one word.
  status! string # What is observed.
  type! string # Kind of it.
ReplicaSetSpec # What a replica set should be.
  minReadySeconds int32 # Seconds a pod must be ready to count as available.
  replicas int32 default=1 # Pods wanted; default 1.
  selector! LabelSelector # Selects the pods; must match the template's labels and cannot be changed.
  template PodTemplateSpec # Pods to make.
ReplicaSetStatus # How many pods a replica set has.
  availableReplicas int32 # Pods that have been ready for at least minReadySeconds.
  conditions []ReplicaSetCondition key=type patch=merge:type # What is observed at present, by type.
  fullyLabeledReplicas int32 # Pods that carry all labels of the template.
  observedGeneration int64 # Generation that the status describes.
  readyReplicas int32 # Pods that are ready.
  replicas! int32 # Pods that exist.
  terminatingReplicas int32 # Pods that are being stopped.
RollingUpdateDaemonSet # Settings of a rolling update.
  maxSurge intstr # How many more pods than wanted may exist during a roll-out; number or percentage.
  maxUnavailable intstr # How many pods may be unavailable during a roll-out; number or percentage.
RollingUpdateDeployment # Settings of a rolling update.
  maxSurge intstr # How many more pods than wanted may exist during a roll-out; number or percentage.
  maxUnavailable intstr # How many pods may be unavailable during a roll-out; number or percentage.
@package io.k8s.api.authentication.v1
BoundObjectReference # Object a token lives as long as.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  name string # Name, unique where it is used.
  uid string # Identifier, unique over all time; set by the server.
TokenRequest # Asks for a token of a service account.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec TokenRequestSpec # What kind of token.
  status TokenRequestStatus # The token.
TokenRequestSpec # What kind of token is asked for.
  audiences []string atomic # Whom the token is meant for.
  boundObjectRef BoundObjectReference # Object the token lives as long as; a Pod or a Secret.
  expirationSeconds int64 default=3600 # Seconds the token should be valid; at least 600.
TokenRequestStatus # The token that was made.
  expirationTimestamp time # Time the token ends to be valid.
  token string # The token.
@package io.k8s.api.autoscaling.v1
Scale # How many replicas an object has, and should have.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec ScaleSpec # How many are wanted.
  status ScaleStatus # How many there are.
ScaleSpec # How many replicas are wanted.
  replicas int32 # How many pods.
ScaleStatus # How many replicas there are.
  replicas! int32 # How many pods.
  selector string # Selects the replicas, as text.
@package io.k8s.api.policy.v1
Eviction # Asks for a pod to be removed in an orderly way.
  apiVersion string # Group and version of this object.
  deleteOptions DeleteOptions # How the pod is deleted.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
"""
