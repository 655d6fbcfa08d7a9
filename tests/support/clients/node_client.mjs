// An informer made with @kubernetes/client-node: `node node_client.mjs SERVER`; see tests.support.kubernetes_clients.
import { createRequire } from "node:module";
import readline from "node:readline";

const require = createRequire(process.env.EDGEHIVE_CLIENT_NODE + "/package.json");
const k8s = require("@kubernetes/client-node");

const config = new k8s.KubeConfig();
// Plain HTTP is taken only from those who say that they do not check certificates.
config.loadFromClusterAndUser({ name: "edge", server: process.argv[2], skipTLSVerify: true }, { name: "nobody" });
const core = config.makeApiClient(k8s.CoreV1Api);
const custom = config.makeApiClient(k8s.CustomObjectsApi);
const namespace = "default";
const things = { group: "clients.example.com", version: "v1", namespace, plural: "things" };

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const tell = (event, object) =>
  say({ event, name: object.metadata.name, value: event === "DELETED" ? null : (object.data?.v ?? null) });

const informer = k8s.makeInformer(config, "/api/v1/namespaces/default/configmaps", async () => {
  const found = await core.listNamespacedConfigMap({ namespace });
  setTimeout(() => say({ listed: found.metadata.resourceVersion }), 0);
  return found;
});
const known = new Map();
const changed = (event) => (object) => {
  if (known.get(object.metadata.name) === object.metadata.resourceVersion) return; // an informer's own resync
  known.set(object.metadata.name, object.metadata.resourceVersion);
  tell(event, object);
};
informer.on("add", changed("ADDED"));
informer.on("update", changed("MODIFIED"));
informer.on("delete", (object) => {
  known.delete(object.metadata.name);
  tell("DELETED", object);
});
informer.on("error", () => setTimeout(() => informer.start().catch(() => {}), 100));
const begin = () => informer.start().catch(() => setTimeout(begin, 100));
begin();

const shown = (object) => ({ name: object.metadata.name, value: object.data?.v ?? null });

async function command({ do: what, name, value }) {
  switch (what) {
    case "list":
      return (await core.listNamespacedConfigMap({ namespace })).items.map((o) => o.metadata.name).sort();
    case "get":
      return shown(await core.readNamespacedConfigMap({ name, namespace }));
    case "create":
      return shown(
        await core.createNamespacedConfigMap({ namespace, body: { metadata: { name }, data: { v: value } } }),
      );
    case "patch": {
      const merge = k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.MergePatch);
      return shown(await core.patchNamespacedConfigMap({ name, namespace, body: { data: { v: value } } }, merge));
    }
    case "delete":
      await core.deleteNamespacedConfigMap({ name, namespace });
      return name;
    case "create-thing": {
      const body = {
        apiVersion: "clients.example.com/v1",
        kind: "Thing",
        metadata: { name },
        spec: { v: value },
      };
      return (await custom.createNamespacedCustomObject({ ...things, body })).spec;
    }
    case "list-things": {
      const found = await custom.listNamespacedCustomObject(things);
      return Object.fromEntries(found.items.map((o) => [o.metadata.name, o.spec.v]));
    }
  }
}

for await (const text of readline.createInterface({ input: process.stdin })) {
  const line = JSON.parse(text);
  try {
    say({ id: line.id, result: await command(line) });
  } catch (error) {
    const body = typeof error.body === "string" ? JSON.parse(error.body) : (error.body ?? {});
    say({ id: line.id, code: error.code ?? 0, reason: body.reason ?? String(error) });
  }
}
process.exit(0);
