// Command check checks compose.yaml and the Kubernetes manifests of the folder deploy against the
// types of their programs: each member must exist there and have a value of its type. It is a
// module of its own, because these programs are large.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/compose-spec/compose-go/v2/cli"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func main() {
	if err := errors.Join(checkKubernetes("../kubernetes"), checkCompose("../compose/compose.yaml")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// checkKubernetes builds a kustomization and decodes its objects strictly.
func checkKubernetes(dir string) error {
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return err
	}
	types := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(types), monitoring.AddToScheme(types)); err != nil {
		return err
	}
	decoder := serializer.NewCodecFactory(types, serializer.EnableStrict).UniversalDeserializer()
	var problems []error
	for _, object := range objects.Resources() {
		text, err := object.AsYAML()
		if err != nil {
			return err
		}
		if _, _, err := decoder.Decode(text, nil, nil); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", object.CurId(), err))
		}
		// A selector that no label was added to would select everything in the namespace.
		if bytes.Contains(text, []byte("elector: {}\n")) {
			problems = append(problems, fmt.Errorf("%s: an empty selector", object.CurId()))
		}
	}
	fmt.Println("kubernetes:", objects.Size(), "objects")
	return errors.Join(problems...)
}

// checkCompose loads a compose file, whose references must exist. Of the files that it mounts,
// those in the folder secrets are made later.
func checkCompose(path string) error {
	options, err := cli.NewProjectOptions([]string{path}, cli.WithInterpolation(true))
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	var problems []error
	for name, service := range project.Services {
		for _, volume := range service.Volumes {
			if volume.Type != "bind" || within(filepath.Join(project.WorkingDir, "secrets"), volume.Source) {
				continue
			}
			if _, err := os.Stat(volume.Source); err != nil {
				problems = append(problems, fmt.Errorf("service %s: %w", name, err))
			}
		}
	}
	fmt.Println("compose:", len(project.Services), "services")
	return errors.Join(problems...)
}

// within reports whether a path is a folder or in it.
func within(folder, path string) bool {
	relative, err := filepath.Rel(folder, path)
	return err == nil && filepath.IsLocal(relative)
}
