// An informer made with client-go: `go_client SERVER`, where SERVER may be "in-cluster"; see
// tests.support.kubernetes_clients. Build it in a module that has k8s.io/client-go.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

const namespace = "default"

var things = schema.GroupVersionResource{Group: "clients.example.com", Version: "v1", Resource: "things"}
var output sync.Mutex

func say(line map[string]any) {
	output.Lock()
	defer output.Unlock()
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

func value(found *corev1.ConfigMap) any {
	if v, ok := found.Data["v"]; ok {
		return v
	}
	return nil
}

func shown(found *corev1.ConfigMap, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return map[string]any{"name": found.Name, "value": value(found)}, nil
}

func watch(client kubernetes.Interface, stop <-chan struct{}) {
	factory := informers.NewSharedInformerFactoryWithOptions(
		client, 500*time.Millisecond, informers.WithNamespace(namespace))
	informer := factory.Core().V1().ConfigMaps().Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			found := obj.(*corev1.ConfigMap)
			say(map[string]any{"event": "ADDED", "name": found.Name, "value": value(found)})
		},
		UpdateFunc: func(old, obj any) {
			found := obj.(*corev1.ConfigMap)
			if old.(*corev1.ConfigMap).ResourceVersion != found.ResourceVersion { // a resync says so of everything
				say(map[string]any{"event": "MODIFIED", "name": found.Name, "value": value(found)})
			}
		},
		DeleteFunc: func(obj any) {
			name, _ := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
			_, name, _ = cache.SplitMetaNamespaceKey(name)
			say(map[string]any{"event": "DELETED", "name": name, "value": nil})
		},
	})
	if err != nil {
		panic(err)
	}
	factory.Start(stop)
	factory.WaitForCacheSync(stop)
	say(map[string]any{"listed": informer.LastSyncResourceVersion()})
}

// lead becomes the leader by a Lease, gives it back, and says who has it.
func lead(ctx context.Context, client kubernetes.Interface, name, identity string) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	leading := false
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Name: name, Namespace: namespace},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		ReleaseOnCancel: true,
		LeaseDuration:   3 * time.Second,
		RenewDeadline:   2 * time.Second,
		RetryPeriod:     200 * time.Millisecond,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {
				leading = true
				time.Sleep(500 * time.Millisecond) // renewed meanwhile
				cancel()
			},
			OnStoppedLeading: func() {},
		},
	})
	return leading, nil
}

func command(ctx context.Context, client kubernetes.Interface, custom dynamic.Interface, what, name, v string) (any, error) {
	maps := client.CoreV1().ConfigMaps(namespace)
	body := fmt.Sprintf(`{"data":{"v":%q}}`, v)
	switch what {
	case "list":
		found, err := maps.List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		names := []string{}
		for _, item := range found.Items {
			names = append(names, item.Name)
		}
		sort.Strings(names)
		return names, nil
	case "get":
		return shown(maps.Get(ctx, name, metav1.GetOptions{}))
	case "create":
		wanted := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"v": v}}
		return shown(maps.Create(ctx, wanted, metav1.CreateOptions{}))
	case "patch":
		return shown(maps.Patch(ctx, name, types.MergePatchType, []byte(body), metav1.PatchOptions{}))
	case "patch-strategic":
		return shown(maps.Patch(ctx, name, types.StrategicMergePatchType, []byte(body), metav1.PatchOptions{}))
	case "patch-json":
		ops := fmt.Sprintf(`[{"op":"replace","path":"/data/v","value":%q}]`, v)
		return shown(maps.Patch(ctx, name, types.JSONPatchType, []byte(ops), metav1.PatchOptions{}))
	case "apply":
		wanted := applycorev1.ConfigMap(name, namespace).WithData(map[string]string{"v": v})
		return shown(maps.Apply(ctx, wanted, metav1.ApplyOptions{FieldManager: "go", Force: true}))
	case "replace":
		old, err := maps.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		old.Data["v"] = v
		return shown(maps.Update(ctx, old, metav1.UpdateOptions{}))
	case "delete":
		return name, maps.Delete(ctx, name, metav1.DeleteOptions{})
	case "create-thing":
		thing := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "clients.example.com/v1", "kind": "Thing",
			"metadata": map[string]any{"name": name}, "spec": map[string]any{"v": v},
		}}
		made, err := custom.Resource(things).Namespace(namespace).Create(ctx, thing, metav1.CreateOptions{})
		if err != nil {
			return nil, err
		}
		return made.Object["spec"], nil
	case "list-things":
		found, err := custom.Resource(things).Namespace(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		all := map[string]any{}
		for _, item := range found.Items {
			all[item.GetName()], _, _ = unstructured.NestedString(item.Object, "spec", "v")
		}
		return all, nil
	case "list-pods":
		found, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		names := []string{}
		for _, item := range found.Items {
			names = append(names, item.Name)
		}
		return names, nil
	case "log":
		text, err := client.CoreV1().Pods(namespace).GetLogs(name, &corev1.PodLogOptions{}).DoRaw(ctx)
		return string(text), err
	case "lead":
		return lead(ctx, client, name, v)
	case "version":
		found, err := client.Discovery().ServerVersion()
		if err != nil {
			return nil, err
		}
		return found.GitVersion, nil
	}
	return nil, fmt.Errorf("unknown command %s", what)
}

func main() {
	config := &rest.Config{Host: os.Args[1]}
	if os.Args[1] == "in-cluster" {
		var err error
		if config, err = rest.InClusterConfig(); err != nil {
			panic(err)
		}
	}
	client := kubernetes.NewForConfigOrDie(config)
	custom := dynamic.NewForConfigOrDie(config)
	ctx := context.Background()
	go watch(client, ctx.Done())
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		var line struct {
			ID    int
			Do    string
			Name  string
			Value string
		}
		if err := json.Unmarshal(input.Bytes(), &line); err != nil {
			panic(err)
		}
		result, err := command(ctx, client, custom, line.Do, line.Name, line.Value)
		if status := apierrors.APIStatus(nil); err == nil {
			say(map[string]any{"id": line.ID, "result": result})
		} else if ok := asStatus(err, &status); ok {
			say(map[string]any{"id": line.ID, "code": status.Status().Code, "reason": status.Status().Reason})
		} else {
			say(map[string]any{"id": line.ID, "code": 0, "reason": err.Error()})
		}
	}
}

func asStatus(err error, status *apierrors.APIStatus) bool {
	found, ok := err.(apierrors.APIStatus)
	*status = found
	return ok
}
