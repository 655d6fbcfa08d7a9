"""CustomResourceDefinition and what it holds.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1
CustomResourceColumnDefinition # A column of kubectl get.
  description string # What the column shows.
  format string # Further form of the value, such as date-time or int32.
  jsonPath! string # Where the value is in the object, such as .spec.size.
  name! string # Title of the column.
  priority int32 # 0 to show it always, more to show it with -o wide.
  type! string # integer, number, string, boolean or date.
CustomResourceConversion # How objects are converted between versions.
  strategy! string default="None" # None or Webhook.
  webhook WebhookConversion # Webhook that converts.
CustomResourceDefinition # Adds a kind of objects to the API.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec! CustomResourceDefinitionSpec # Name, scope, versions and schema of the kind.
  status CustomResourceDefinitionStatus # Whether the names are accepted and the kind is served.
CustomResourceDefinitionCondition # One observation of a definition.
  lastTransitionTime time # Time the status last changed.
  message string # What happened, for people.
  observedGeneration int64 # Generation that the status describes.
  reason string # Why, in one word.
  status! string # What is observed.
  type! string # Kind of it.
CustomResourceDefinitionNames # Names of a kind.
  categories []string atomic # Groups the kind belongs to, such as all.
  kind! string # Name of the kind, in CamelCase.
  listKind string # Kind of a list; by default the kind with List added.
  plural! string # Name of the resource in URLs.
  shortNames []string atomic # Abbreviations for kubectl.
  singular string # Name of one object; by default the kind in lower case.
CustomResourceDefinitionSpec # Name, scope, versions and schema of a kind.
  conversion CustomResourceConversion default={} # How objects are converted between versions.
  group! string # API group, such as example.com.
  names! CustomResourceDefinitionNames # Names of the kind.
  preserveUnknownFields bool # Must be false: unknown fields are removed.
  scope! string # Namespaced or Cluster.
  versions! []CustomResourceDefinitionVersion atomic # Versions of the kind.
CustomResourceDefinitionStatus # Whether a kind is served.
  acceptedNames CustomResourceDefinitionNames # Names in use, which may lag behind those wanted.
  conditions []CustomResourceDefinitionCondition key=type # What is observed at present, by type.
  observedGeneration int64 # Generation that the status describes.
  storedVersions []string atomic # Versions in which objects may be stored.
CustomResourceDefinitionVersion # One version of a kind.
  additionalPrinterColumns []CustomResourceColumnDefinition atomic # Columns of kubectl get, besides name and age.
  deprecated bool # Whether use of this version is warned of.
  deprecationWarning string # Text of that warning.
  name! string # Name of the version, such as v1alpha1.
  schema CustomResourceValidation # Schema objects of this version are checked against.
  selectableFields []SelectableField atomic # Fields by which objects can be selected.
  served! bool # Whether this version is served.
  storage! bool # Whether objects are stored in this version.
  subresources CustomResourceSubresources # Subresources the kind has.
CustomResourceSubresourceScale # How a kind is scaled.
  labelSelectorPath string # Where a label selector as text is.
  specReplicasPath! string # Where the wanted number is, below .spec.
  statusReplicasPath! string # Where the observed number is, below .status.
CustomResourceSubresourceStatus # Says that status is written on its own.
CustomResourceSubresources # Subresources of a version.
  scale CustomResourceSubresourceScale # How the object is scaled.
  status CustomResourceSubresourceStatus # Whether status is written on its own.
CustomResourceValidation # Schema of a version.
  openAPIV3Schema JSONSchemaProps # The schema, in OpenAPI version 3.
ExternalDocumentation # Further documentation.
  description string # What is found there.
  url string # An address.
JSONSchemaProps # A JSON schema, as far as Kubernetes supports it.
  $ref string # Not supported.
  $schema string # Address of the schema language.
  additionalItems any # Not supported.
  additionalProperties any # Schema of the values of a map, or whether any are allowed.
  allOf []JSONSchemaProps atomic # Schemas that must all hold.
  anyOf []JSONSchemaProps atomic # Schemas of which at least one must hold.
  default any # Value when the field is absent.
  definitions map:JSONSchemaProps # Not supported.
  dependencies map:any # Not supported.
  description string # What the field means; kubectl explain shows it.
  enum []any atomic # The allowed values.
  example any # An example.
  exclusiveMaximum bool # Whether maximum itself is too much.
  exclusiveMinimum bool # Whether minimum itself is too little.
  externalDocs ExternalDocumentation # Further documentation.
  format string # Further form of the value, such as date-time or int32.
  id string # Not supported.
  items any # Schema of the items of a list.
  maxItems int64 # Most items of a list.
  maxLength int64 # Most characters.
  maxProperties int64 # Most fields.
  maximum double # Greatest number.
  minItems int64 # Least items of a list.
  minLength int64 # Least characters.
  minProperties int64 # Least fields.
  minimum double # Least number.
  multipleOf double # The number must be a multiple of this.
  not JSONSchemaProps # Schema that must not hold.
  nullable bool # Whether null is allowed.
  oneOf []JSONSchemaProps atomic # Schemas of which exactly one must hold.
  pattern string # Regular expression that the text must match.
  patternProperties map:JSONSchemaProps # Not supported.
  properties map:JSONSchemaProps # Schemas of the fields.
  required []string atomic # Fields that must be present.
  title string # A title.
  type string # object, array, string, integer, number or boolean.
  uniqueItems bool # Must be false.
  x-kubernetes-embedded-resource bool # Whether it is a whole object with apiVersion, kind and metadata.
  x-kubernetes-int-or-string bool # Whether it is a number or a text.
  x-kubernetes-list-map-keys []string atomic # Fields by which items of the list are told apart.
  x-kubernetes-list-type string # How the list merges: atomic, set or map.
  x-kubernetes-map-type string # How the map merges: granular or atomic.
  x-kubernetes-preserve-unknown-fields bool # Whether unknown fields are kept.
  x-kubernetes-validations []ValidationRule key=rule patch=merge:rule # Expressions that must be true.
SelectableField # A field by which objects can be selected.
  jsonPath! string # Where the value is in the object, such as .spec.size.
ServiceReference # Points at a service.
  name! string # Name of the service.
  namespace! string # Namespace of the service.
  path string # Path of the request.
  port int32 default=443 # Port of the service; default 443.
ValidationRule # An expression that must be true.
  fieldPath string # Field that the message is about.
  message string # Text of the error.
  messageExpression string # Expression that makes the message.
  optionalOldSelf bool # Whether the rule also runs when there is no old value.
  reason string # Reason of the error.
  rule! string # Expression that must be true.
WebhookClientConfig # How a webhook is called: by address or by service.
  caBundle bytes # PEM certificates that sign the server's certificate.
  service ServiceReference # Service that is called.
  url string # An address.
WebhookConversion # A webhook that converts objects.
  clientConfig WebhookClientConfig # How the webhook is called.
  conversionReviewVersions! []string atomic # Versions of ConversionReview the webhook understands.
"""
