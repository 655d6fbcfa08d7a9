"""Services and endpoints.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.core.v1
ClientIPConfig
  timeoutSeconds int32
EndpointAddress atomic
  hostname string
  ip! string
  nodeName string
  targetRef ObjectReference
EndpointPort atomic
  appProtocol string
  name string
  port! int32
  protocol string default="TCP"
EndpointSubset
  addresses []EndpointAddress atomic
  notReadyAddresses []EndpointAddress atomic
  ports []EndpointPort atomic
Endpoints
  apiVersion string
  kind string
  metadata ObjectMeta
  subsets []EndpointSubset atomic
LoadBalancerIngress
  hostname string
  ip string
  ipMode string
  ports []PortStatus atomic
LoadBalancerStatus
  ingress []LoadBalancerIngress atomic
PortStatus
  error string
  port! int32
  protocol! string
Service
  apiVersion string
  kind string
  metadata ObjectMeta
  spec ServiceSpec
  status ServiceStatus default={"loadBalancer":{}}
ServicePort
  appProtocol string
  name string
  nodePort int32
  port! int32
  protocol string default="TCP"
  targetPort intstr
ServiceSpec
  allocateLoadBalancerNodePorts bool
  clusterIP string
  clusterIPs []string atomic
  externalIPs []string atomic
  externalName string
  externalTrafficPolicy string
  healthCheckNodePort int32
  internalTrafficPolicy string
  ipFamilies []string atomic
  ipFamilyPolicy string
  loadBalancerClass string
  loadBalancerIP string
  loadBalancerSourceRanges []string atomic
  ports []ServicePort key=port,protocol patch=merge:port
  publishNotReadyAddresses bool
  selector map:string map-atomic
  sessionAffinity string default="None"
  sessionAffinityConfig SessionAffinityConfig
  trafficDistribution string
  type string default="ClusterIP"
ServiceStatus
  conditions []Condition key=type patch=merge:type
  loadBalancer LoadBalancerStatus default={}
SessionAffinityConfig
  clientIP ClientIPConfig
@package io.k8s.api.discovery.v1
Endpoint
  addresses! []string set
  conditions EndpointConditions
  deprecatedTopology map:string
  hints EndpointHints
  hostname string
  nodeName string
  targetRef ObjectReference
  zone string
EndpointConditions
  ready bool
  serving bool
  terminating bool
EndpointHints
  forNodes []ForNode atomic
  forZones []ForZone atomic
EndpointSlice
  addressType! string
  apiVersion string
  endpoints []Endpoint atomic
  kind string
  metadata ObjectMeta
  ports []SlicePort atomic
ForNode
  name! string
ForZone
  name! string
SlicePort=EndpointPort atomic
  appProtocol string
  name string default=""
  port int32
  protocol string default="TCP"
"""
