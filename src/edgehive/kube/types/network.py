"""Services and endpoints.

The form of the table is told in `kube.types.table`.
"""

TABLE = """
@package io.k8s.api.core.v1
ClientIPConfig # Stickiness by client address.
  timeoutSeconds int32 # Seconds a client stays at one pod; default 10800.
EndpointAddress atomic # An address behind a service.
  hostname string # Host name.
  ip! string # An IP address.
  nodeName string # Node it is on.
  targetRef ObjectReference # Object behind the address.
EndpointPort atomic # A port behind a service.
  appProtocol string # Application protocol of the port, as a hint.
  name string # Name, unique where it is used.
  port! int32 # Number of the port.
  protocol string default="TCP" # TCP, UDP or SCTP.
EndpointSubset # Addresses that share their ports.
  addresses []EndpointAddress atomic # Addresses it can be reached at.
  notReadyAddresses []EndpointAddress atomic # Addresses of pods that are not ready.
  ports []EndpointPort atomic # Ports.
Endpoints # Addresses and ports behind a service.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  subsets []EndpointSubset atomic # Groups of addresses with the same ports.
LoadBalancerIngress # A point at which a load balancer is reached.
  hostname string # Host name.
  ip string # An IP address.
  ipMode string # How the address behaves: VIP or Proxy.
  ports []PortStatus atomic # Ports.
LoadBalancerStatus # State of a load balancer.
  ingress []LoadBalancerIngress atomic # Points at which the load balancer is reached.
PortStatus # State of a port of a load balancer.
  error string # What went wrong; empty when nothing.
  port! int32 # Number of the port.
  protocol! string # TCP, UDP or SCTP.
Service # A stable name, and often address, for a set of pods.
  apiVersion string # Group and version of this object.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  spec ServiceSpec # Which pods, which ports, and how they are reached.
  status ServiceStatus default={"loadBalancer":{}} # State of the load balancer.
ServicePort # A port of a service.
  appProtocol string # Application protocol of the port, as a hint.
  name string # Name, unique where it is used.
  nodePort int32 # Port of every node that leads to the service.
  port! int32 # Number of the port.
  protocol string default="TCP" # TCP, UDP or SCTP.
  targetPort intstr # Port of the pods, number or name; by default the same as port.
ServiceSpec # Which pods, which ports, and how they are reached.
  allocateLoadBalancerNodePorts bool # Whether a load balancer's ports also get node ports.
  clusterIP string # Virtual address of the service; None for a headless one.
  clusterIPs []string atomic # Virtual addresses of the service, the first being clusterIP.
  externalIPs []string atomic # Addresses outside the cluster that nodes accept for the service.
  externalName string # Name that the service is an alias of.
  externalTrafficPolicy string # How traffic from outside is routed: Cluster or Local.
  healthCheckNodePort int32 # Node port of health checks, for externalTrafficPolicy Local.
  internalTrafficPolicy string # How traffic from inside is routed: Cluster or Local.
  ipFamilies []string atomic # Address families, in order: IPv4, IPv6.
  ipFamilyPolicy string # How many families: SingleStack, PreferDualStack or RequireDualStack.
  loadBalancerClass string # Implementation of the load balancer.
  loadBalancerIP string # Wanted address of the load balancer; deprecated.
  loadBalancerSourceRanges []string atomic # Networks that may use the load balancer.
  ports []ServicePort key=port,protocol patch=merge:port # Ports of the service.
  publishNotReadyAddresses bool # Whether pods that are not ready are published too.
  selector map:string map-atomic # Labels of the pods; without it endpoints are kept by others.
  sessionAffinity string default="None" # Whether a client stays at one pod: ClientIP or None.
  sessionAffinityConfig SessionAffinityConfig # Settings of that stickiness.
  trafficDistribution string # Preference for near endpoints.
  type string default="ClusterIP" # ClusterIP, NodePort, LoadBalancer or ExternalName.
ServiceStatus # State of a service.
  conditions []Condition key=type patch=merge:type # What is observed at present, by type.
  loadBalancer LoadBalancerStatus default={} # State of the load balancer.
SessionAffinityConfig # Settings of stickiness.
  clientIP ClientIPConfig # Settings of stickiness by client address.
@package io.k8s.api.discovery.v1
Endpoint # One thing behind a service, usually a pod.
  addresses! []string set # Addresses that all lead to the same thing.
  conditions EndpointConditions # Whether it can be used.
  deprecatedTopology map:string # Topology labels from an old version.
  hints EndpointHints # How the endpoint should be used.
  hostname string # Host name.
  nodeName string # Node it is on.
  targetRef ObjectReference # Object behind the address.
  zone string # Zone it is in.
EndpointConditions # Whether an endpoint can be used.
  ready bool # Whether it can be used.
  serving bool # Whether it accepts connections.
  terminating bool # Whether it is being stopped.
EndpointHints # How an endpoint should be used.
  forNodes []ForNode atomic # Nodes the endpoint is meant for.
  forZones []ForZone atomic # Zones the endpoint is meant for.
EndpointSlice # Some of the addresses and ports behind a service.
  addressType! string # Kind of all addresses: IPv4, IPv6 or FQDN. Cannot be changed.
  apiVersion string # Group and version of this object.
  endpoints []Endpoint atomic # The endpoints, at most 1000.
  kind string # What this object is.
  metadata ObjectMeta # Name, labels and what else every object has.
  ports []SlicePort atomic # Ports of every endpoint.
ForNode # A node an endpoint is meant for.
  name! string # Name, unique where it is used.
ForZone # A zone an endpoint is meant for.
  name! string # Name, unique where it is used.
SlicePort=EndpointPort atomic # A port of endpoints.
  appProtocol string # Application protocol of the port, as a hint.
  name string default="" # Name, unique where it is used.
  port int32 # Number of the port.
  protocol string default="TCP" # TCP, UDP or SCTP.
"""
