"""Deployments, replica sets, daemon sets; scale, eviction, token requests.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.apps.v1
DaemonSet
  apiVersion string
  kind string
  metadata ObjectMeta
  spec DaemonSetSpec
  status DaemonSetStatus default={"currentNumberScheduled":0,"desiredNumberScheduled":0,"numberMisscheduled":0,"numberReady":0}
DaemonSetCondition
  lastTransitionTime time
  message string
  reason string
  status! string
  type! string
DaemonSetSpec
  minReadySeconds int32
  revisionHistoryLimit int32 default=10
  selector! LabelSelector
  template! PodTemplateSpec
  updateStrategy DaemonSetUpdateStrategy default={}
DaemonSetStatus
  collisionCount int32
  conditions []DaemonSetCondition key=type patch=merge:type
  currentNumberScheduled! int32
  desiredNumberScheduled! int32
  numberAvailable int32
  numberMisscheduled! int32
  numberReady! int32
  numberUnavailable int32
  observedGeneration int64
  updatedNumberScheduled int32
DaemonSetUpdateStrategy
  rollingUpdate RollingUpdateDaemonSet
  type string default="RollingUpdate"
Deployment
  apiVersion string
  kind string
  metadata ObjectMeta
  spec DeploymentSpec
  status DeploymentStatus default={}
DeploymentCondition
  lastTransitionTime time
  lastUpdateTime time
  message string
  reason string
  status! string
  type! string
DeploymentSpec
  minReadySeconds int32
  paused bool
  progressDeadlineSeconds int32 default=600
  replicas int32 default=1
  revisionHistoryLimit int32 default=10
  selector! LabelSelector
  strategy DeploymentStrategy patch=retainKeys default={}
  template! PodTemplateSpec
DeploymentStatus
  availableReplicas int32
  collisionCount int32
  conditions []DeploymentCondition key=type patch=merge:type
  observedGeneration int64
  readyReplicas int32
  replicas int32
  terminatingReplicas int32
  unavailableReplicas int32
  updatedReplicas int32
DeploymentStrategy
  rollingUpdate RollingUpdateDeployment
  type string default="RollingUpdate"
ReplicaSet
  apiVersion string
  kind string
  metadata ObjectMeta
  spec ReplicaSetSpec
  status ReplicaSetStatus default={"replicas":0}
ReplicaSetCondition
  lastTransitionTime time
  message string
  reason string
  status! string
  type! string
ReplicaSetSpec
  minReadySeconds int32
  replicas int32 default=1
  selector! LabelSelector
  template PodTemplateSpec
ReplicaSetStatus
  availableReplicas int32
  conditions []ReplicaSetCondition key=type patch=merge:type
  fullyLabeledReplicas int32
  observedGeneration int64
  readyReplicas int32
  replicas! int32
  terminatingReplicas int32
RollingUpdateDaemonSet
  maxSurge intstr
  maxUnavailable intstr
RollingUpdateDeployment
  maxSurge intstr
  maxUnavailable intstr
@package io.k8s.api.authentication.v1
BoundObjectReference
  apiVersion string
  kind string
  name string
  uid string
TokenRequest
  apiVersion string
  kind string
  metadata ObjectMeta
  spec TokenRequestSpec
  status TokenRequestStatus
TokenRequestSpec
  audiences []string atomic
  boundObjectRef BoundObjectReference
  expirationSeconds int64 default=3600
TokenRequestStatus
  expirationTimestamp time
  token string
@package io.k8s.api.autoscaling.v1
Scale
  apiVersion string
  kind string
  metadata ObjectMeta
  spec ScaleSpec
  status ScaleStatus
ScaleSpec
  replicas int32
ScaleStatus
  replicas! int32
  selector string
@package io.k8s.api.policy.v1
Eviction
  apiVersion string
  deleteOptions DeleteOptions
  kind string
  metadata ObjectMeta
"""
