// Judges Kubernetes manifests without a cluster, as its API server would, and compose files without
// Docker, as `docker compose config` would.
//
//	manifests check FILE...             each object of these files ("-": standard input)
//	manifests build FOLDER              prints what `kubectl kustomize FOLDER` does
//	manifests compose FILE [PROFILE]... prints what the file comes to with these profiles and the
//	                                    variables of the environment, as JSON
//
// `check` is what happens to an object that is created: strict decoding (an unknown or doubled field
// is a mistake), defaults, the validation of the API server itself, and its warnings; then the Pod
// Security Standard "restricted", which a namespace may ask for. Objects of the Prometheus operator
// are decoded strictly, and no more. It prints a line for each object; mistakes go to standard error,
// a line each.
//
// Exit codes: 0 no mistake; 1 there are some; 2 wrong usage.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corev1conversion "k8s.io/kubernetes/pkg/apis/core/v1"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	disruption "k8s.io/kubernetes/pkg/apis/policy"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	disruptionvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	security "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

func main() {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "build":
		exit(build(os.Args[2]))
	case len(os.Args) >= 3 && os.Args[1] == "check":
		exit(check(os.Args[2:]))
	case len(os.Args) >= 3 && os.Args[1] == "compose":
		exit(compose(os.Args[2], os.Args[3:]))
	default:
		fmt.Fprintln(os.Stderr, "usage: manifests check FILE... | build FOLDER | compose FILE [PROFILE]...")
		os.Exit(2)
	}
}

func exit(mistakes []error) {
	for _, mistake := range mistakes {
		fmt.Fprintln(os.Stderr, mistake)
	}
	if len(mistakes) > 0 {
		os.Exit(1)
	}
}

func build(folder string) []error {
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return []error{err}
	}
	text, err := made.AsYaml()
	if err != nil {
		return []error{err}
	}
	os.Stdout.Write(text)
	return nil
}

func compose(file string, profiles []string) []error {
	options, err := cli.NewProjectOptions([]string{file}, cli.WithOsEnv, cli.WithProfiles(profiles))
	if err != nil {
		return []error{err}
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return []error{err}
	}
	text, err := project.MarshalJSON()
	if err != nil {
		return []error{err}
	}
	os.Stdout.Write(text)
	return nil
}

func check(names []string) (mistakes []error) {
	checker, err := newChecker()
	if err != nil {
		return []error{err}
	}
	for _, name := range names {
		if err := checker.file(name, &mistakes); err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %w", name, err))
		}
	}
	return mistakes
}

type checker struct {
	decoder runtime.Decoder
	pods    policy.Evaluator
}

func newChecker() (*checker, error) {
	scheme := legacyscheme.Scheme
	strict := json.NewSerializerWithOptions(
		json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	pods, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	return &checker{strict, pods}, err
}

func (c *checker) file(name string, mistakes *[]error) error {
	input := io.Reader(os.Stdin)
	if name != "-" {
		opened, err := os.Open(name)
		if err != nil {
			return err
		}
		defer opened.Close()
		input = opened
	}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(input))
	for {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var some any
		if yaml.Unmarshal(text, &some) == nil && some == nil {
			continue // comments only
		}
		what, found := c.object(text)
		for _, mistake := range found {
			*mistakes = append(*mistakes, fmt.Errorf("%s: %s: %w", name, what, mistake))
		}
		fmt.Println(what)
	}
}

// What an object is called, and what is wrong with it.
func (c *checker) object(text []byte) (string, []error) {
	var head metav1.PartialObjectMetadata
	if err := yaml.Unmarshal(text, &head); err != nil {
		return "a document", []error{err}
	}
	what := head.Kind + "/" + head.Name
	if head.GroupVersionKind().Group == monitoring.SchemeGroupVersion.Group {
		return what, operator(text, head.GroupVersionKind())
	}
	object, kind, err := c.decoder.Decode(text, nil, nil)
	if err != nil {
		return what, []error{err}
	}
	if named, ok := object.(metav1.Object); ok && named.GetNamespace() == "" {
		named.SetNamespace(metav1.NamespaceDefault) // as kubectl does
	}
	legacyscheme.Scheme.Default(object)
	hub := schema.GroupVersion{Group: kind.Group, Version: runtime.APIVersionInternal}
	internal, err := legacyscheme.Scheme.ConvertToVersion(object, hub)
	if err != nil {
		return what, []error{err}
	}
	return what, c.validate(internal)
}

func operator(text []byte, kind schema.GroupVersionKind) []error {
	var into any
	switch kind.Kind {
	case monitoring.PrometheusRuleKind:
		into = &monitoring.PrometheusRule{}
	case monitoring.PodMonitorsKind:
		into = &monitoring.PodMonitor{}
	case monitoring.ServiceMonitorsKind:
		into = &monitoring.ServiceMonitor{}
	default:
		return []error{fmt.Errorf("%s is not known here", kind)}
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		return []error{err}
	}
	return nil
}

func (c *checker) validate(object runtime.Object) []error {
	var found field.ErrorList
	var more []error
	switch of := object.(type) {
	case *apps.Deployment:
		options := pod.GetValidationOptionsFromPodTemplate(&of.Spec.Template, nil)
		found = appsvalidation.ValidateDeployment(of, options)
		more = c.template(&of.Spec.Template)
	case *apps.StatefulSet:
		options := pod.GetValidationOptionsFromPodTemplate(&of.Spec.Template, nil)
		found = appsvalidation.ValidateStatefulSet(
			of, appsvalidation.StatefulSetValidationOptions{}, options)
		more = c.template(&of.Spec.Template)
	case *core.ConfigMap:
		found = corevalidation.ValidateConfigMap(of)
	case *core.PersistentVolumeClaim:
		found = corevalidation.ValidatePersistentVolumeClaim(
			of, corevalidation.ValidationOptionsForPersistentVolumeClaim(of, nil))
	case *core.Secret:
		found = corevalidation.ValidateSecret(of)
	case *core.Service:
		if of.Spec.ClusterIP == "" {
			of.Spec.ClusterIP = "10.0.0.1" // the server gives it one
		}
		of.Spec.ClusterIPs = []string{of.Spec.ClusterIP}
		found = corevalidation.ValidateServiceCreate(of)
	case *core.ServiceAccount:
		found = corevalidation.ValidateServiceAccount(of)
	case *disruption.PodDisruptionBudget:
		found = disruptionvalidation.ValidatePodDisruptionBudget(
			of, disruptionvalidation.PodDisruptionBudgetValidationOptions{})
	case *networking.NetworkPolicy:
		found = networkingvalidation.ValidateNetworkPolicy(
			of, networkingvalidation.NetworkPolicyValidationOptions{})
	default:
		return []error{fmt.Errorf("%T is not known here", of)}
	}
	for _, mistake := range found {
		more = append(more, mistake)
	}
	return more
}

// Warnings, and what the profile "restricted" forbids.
func (c *checker) template(template *core.PodTemplateSpec) (mistakes []error) {
	for _, warning := range pod.GetWarningsForPodTemplate(
		context.Background(), field.NewPath("spec", "template"), template, nil) {
		mistakes = append(mistakes, errors.New(warning))
	}
	var spec corev1.PodSpec
	if err := corev1conversion.Convert_core_PodSpec_To_v1_PodSpec(&template.Spec, &spec, nil); err != nil {
		return append(mistakes, err)
	}
	level := security.LevelVersion{Level: security.LevelRestricted, Version: security.LatestVersion()}
	result := policy.AggregateCheckResults(c.pods.EvaluatePod(level, &template.ObjectMeta, &spec))
	if !result.Allowed {
		mistakes = append(mistakes, fmt.Errorf(
			"not restricted: %s", strings.TrimSpace(result.ForbiddenDetail())))
	}
	return mistakes
}
