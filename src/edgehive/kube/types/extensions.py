"""CustomResourceDefinition and what it holds.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1
CustomResourceColumnDefinition
  description string
  format string
  jsonPath! string
  name! string
  priority int32
  type! string
CustomResourceConversion
  strategy! string default="None"
  webhook WebhookConversion
CustomResourceDefinition
  apiVersion string
  kind string
  metadata ObjectMeta
  spec! CustomResourceDefinitionSpec
  status CustomResourceDefinitionStatus
CustomResourceDefinitionCondition
  lastTransitionTime time
  message string
  observedGeneration int64
  reason string
  status! string
  type! string
CustomResourceDefinitionNames
  categories []string atomic
  kind! string
  listKind string
  plural! string
  shortNames []string atomic
  singular string
CustomResourceDefinitionSpec
  conversion CustomResourceConversion default={}
  group! string
  names! CustomResourceDefinitionNames
  preserveUnknownFields bool
  scope! string
  versions! []CustomResourceDefinitionVersion atomic
CustomResourceDefinitionStatus
  acceptedNames CustomResourceDefinitionNames
  conditions []CustomResourceDefinitionCondition key=type
  observedGeneration int64
  storedVersions []string atomic
CustomResourceDefinitionVersion
  additionalPrinterColumns []CustomResourceColumnDefinition atomic
  deprecated bool
  deprecationWarning string
  name! string
  schema CustomResourceValidation
  selectableFields []SelectableField atomic
  served! bool
  storage! bool
  subresources CustomResourceSubresources
CustomResourceSubresourceScale
  labelSelectorPath string
  specReplicasPath! string
  statusReplicasPath! string
CustomResourceSubresourceStatus
CustomResourceSubresources
  scale CustomResourceSubresourceScale
  status CustomResourceSubresourceStatus
CustomResourceValidation
  openAPIV3Schema JSONSchemaProps
ExternalDocumentation
  description string
  url string
JSONSchemaProps
  $ref string
  $schema string
  additionalItems any
  additionalProperties any
  allOf []JSONSchemaProps atomic
  anyOf []JSONSchemaProps atomic
  default any
  definitions map:JSONSchemaProps
  dependencies map:any
  description string
  enum []any atomic
  example any
  exclusiveMaximum bool
  exclusiveMinimum bool
  externalDocs ExternalDocumentation
  format string
  id string
  items any
  maxItems int64
  maxLength int64
  maxProperties int64
  maximum double
  minItems int64
  minLength int64
  minProperties int64
  minimum double
  multipleOf double
  not JSONSchemaProps
  nullable bool
  oneOf []JSONSchemaProps atomic
  pattern string
  patternProperties map:JSONSchemaProps
  properties map:JSONSchemaProps
  required []string atomic
  title string
  type string
  uniqueItems bool
  x-kubernetes-embedded-resource bool
  x-kubernetes-int-or-string bool
  x-kubernetes-list-map-keys []string atomic
  x-kubernetes-list-type string
  x-kubernetes-map-type string
  x-kubernetes-preserve-unknown-fields bool
  x-kubernetes-validations []ValidationRule key=rule patch=merge:rule
SelectableField
  jsonPath! string
ServiceReference
  name! string
  namespace! string
  path string
  port int32 default=443
ValidationRule
  fieldPath string
  message string
  messageExpression string
  optionalOldSelf bool
  reason string
  rule! string
WebhookClientConfig
  caBundle bytes
  service ServiceReference
  url string
WebhookConversion
  clientConfig WebhookClientConfig
  conversionReviewVersions! []string atomic
"""
