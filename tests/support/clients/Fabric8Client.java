// An informer made with the fabric8 client: `java -cp 'JARS/*' Fabric8Client.java SERVER`, where SERVER may be
// "in-cluster"; see tests.support.kubernetes_clients.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.fabric8.kubernetes.api.model.ConfigMap;
import io.fabric8.kubernetes.api.model.ConfigMapBuilder;
import io.fabric8.kubernetes.api.model.GenericKubernetesResource;
import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.api.model.Status;
import io.fabric8.kubernetes.client.Config;
import io.fabric8.kubernetes.client.ConfigBuilder;
import io.fabric8.kubernetes.client.KubernetesClient;
import io.fabric8.kubernetes.client.KubernetesClientBuilder;
import io.fabric8.kubernetes.client.KubernetesClientException;
import io.fabric8.kubernetes.client.dsl.base.PatchContext;
import io.fabric8.kubernetes.client.dsl.base.PatchType;
import io.fabric8.kubernetes.client.dsl.base.ResourceDefinitionContext;
import io.fabric8.kubernetes.client.informers.ResourceEventHandler;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Collectors;

public class Fabric8Client {
  static final ObjectMapper JSON = new ObjectMapper();
  static final ResourceDefinitionContext THINGS =
      new ResourceDefinitionContext.Builder()
          .withGroup("clients.example.com")
          .withVersion("v1")
          .withKind("Thing")
          .withPlural("things")
          .withNamespaced(true)
          .build();

  static synchronized void say(Object... pairs) {
    Map<String, Object> line = new LinkedHashMap<>();
    for (int i = 0; i < pairs.length; i += 2) line.put((String) pairs[i], pairs[i + 1]);
    try {
      System.out.println(JSON.writeValueAsString(line));
      System.out.flush();
    } catch (Exception e) {
      throw new IllegalStateException(e);
    }
  }

  static String value(ConfigMap found) {
    return found.getData() == null ? null : found.getData().get("v");
  }

  static Map<String, Object> shown(ConfigMap found) {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("name", found.getMetadata().getName());
    line.put("value", value(found));
    return line;
  }

  static class Teller implements ResourceEventHandler<ConfigMap> {
    // An informer that lists again says of what is gone and back that it was updated or added; its resync says so of
    // everything.
    private final Map<String, String> known = new ConcurrentHashMap<>();

    private void tell(String event, ConfigMap found) {
      String name = found.getMetadata().getName();
      String version = found.getMetadata().getResourceVersion();
      if (version.equals(known.put(name, version))) return;
      say("event", event, "name", name, "value", value(found));
    }

    public void onAdd(ConfigMap found) {
      tell("ADDED", found);
    }

    public void onUpdate(ConfigMap old, ConfigMap found) {
      tell("MODIFIED", found);
    }

    public void onDelete(ConfigMap found, boolean unknown) {
      known.remove(found.getMetadata().getName());
      say("event", "DELETED", "name", found.getMetadata().getName(), "value", null);
    }
  }

  static Object command(KubernetesClient client, String what, String name, String value) {
    var maps = client.configMaps().inNamespace("default");
    var things = client.genericKubernetesResources(THINGS).inNamespace("default");
    var wanted =
        new ConfigMapBuilder().withNewMetadata().withName(name).endMetadata().addToData("v", value).build();
    switch (what) {
      case "list":
        return maps.list().getItems().stream().map(o -> o.getMetadata().getName()).sorted().collect(Collectors.toList());
      case "get":
        ConfigMap found = maps.withName(name).get(); // null where the server says 404
        if (found == null) throw new KubernetesClientException("", 404, status("NotFound"));
        return shown(found);
      case "create":
        return shown(maps.resource(wanted).create());
      case "patch":
        return shown(maps.withName(name).patch(PatchContext.of(PatchType.JSON_MERGE), "{\"data\":{\"v\":\"" + value + "\"}}"));
      case "patch-strategic":
        return shown(
            maps.withName(name).patch(PatchContext.of(PatchType.STRATEGIC_MERGE), "{\"data\":{\"v\":\"" + value + "\"}}"));
      case "patch-json":
        return shown(
            maps.withName(name)
                .patch(
                    PatchContext.of(PatchType.JSON),
                    "[{\"op\":\"replace\",\"path\":\"/data/v\",\"value\":\"" + value + "\"}]"));
      case "edit":
        return shown(maps.withName(name).edit(o -> new ConfigMapBuilder(o).addToData("v", value).build()));
      case "apply":
        return shown(maps.resource(wanted).forceConflicts().serverSideApply());
      case "replace":
        ConfigMap old = maps.withName(name).get();
        old.getData().put("v", value);
        return shown(maps.resource(old).update());
      case "delete":
        maps.withName(name).delete();
        return name;
      case "create-thing": {
        GenericKubernetesResource thing = new GenericKubernetesResource();
        thing.setApiVersion("clients.example.com/v1");
        thing.setKind("Thing");
        thing.setMetadata(new io.fabric8.kubernetes.api.model.ObjectMetaBuilder().withName(name).build());
        thing.setAdditionalProperty("spec", Map.of("v", value));
        return things.resource(thing).create().getAdditionalProperties().get("spec");
      }
      case "list-things": {
        Map<String, Object> all = new TreeMap<>();
        for (GenericKubernetesResource thing : things.list().getItems())
          all.put(thing.getMetadata().getName(), thing.<Object>get("spec", "v"));
        return all;
      }
      case "list-pods":
        return client.pods().inNamespace("default").list().getItems().stream()
            .map(p -> p.getMetadata().getName())
            .sorted()
            .collect(Collectors.toList());
      case "log":
        return client.pods().inNamespace("default").withName(name).getLog();
      case "delete-pod":
        client.pods().inNamespace("default").withName(name).withGracePeriod(0).delete();
        return name;
      case "label-pod": {
        Pod pod =
            client.pods().inNamespace("default").withName(name)
                .patch(PatchContext.of(PatchType.STRATEGIC_MERGE), "{\"metadata\":{\"labels\":{\"v\":\"" + value + "\"}}}");
        return pod.getMetadata().getLabels();
      }
      case "version":
        return client.getKubernetesVersion().getGitVersion();
    }
    throw new IllegalArgumentException(what);
  }

  static Status status(String reason) {
    Status found = new Status();
    found.setReason(reason);
    return found;
  }

  public static void main(String[] words) throws Exception {
    boolean inside = words[0].equals("in-cluster");
    Config config =
        inside
            ? Config.autoConfigure(null)
            : new ConfigBuilder(Config.empty()).withMasterUrl(words[0]).withTrustCerts(true).build();
    config.setNamespace("default");
    config.setRequestRetryBackoffLimit(0); // what is refused is told at once
    KubernetesClient client = new KubernetesClientBuilder().withConfig(config).build();
    var informer =
        client.configMaps().inNamespace("default").runnableInformer(Long.getLong("resync", 500)).addEventHandler(new Teller());
    informer.exceptionHandler((started, error) -> true); // it is started, and goes on, whatever happens
    informer.start().thenRun(() -> say("listed", String.valueOf(informer.lastSyncResourceVersion())));
    var input = new BufferedReader(new InputStreamReader(System.in));
    for (String text = input.readLine(); text != null; text = input.readLine()) {
      JsonNode line = JSON.readTree(text);
      int id = line.get("id").asInt();
      try {
        Object result = command(client, line.get("do").asText(), line.get("name").asText(), line.get("value").asText());
        say("id", id, "result", result);
      } catch (KubernetesClientException e) {
        String reason = e.getStatus() == null ? String.valueOf(e) : e.getStatus().getReason();
        say("id", id, "code", e.getCode(), "reason", reason);
      } catch (Exception e) {
        say("id", id, "code", 0, "reason", String.valueOf(e));
      }
    }
    System.exit(0);
  }
}
