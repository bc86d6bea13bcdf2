package realnode

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/image"
)

const (
	imagesDir      = "images"
	imagesComplete = "complete"
	pauseImage     = "docker.io/emqx-bg/pause:1"
	coreDNSImage   = "docker.io/emqx-bg/coredns:1"
	// BusyboxImage gives its arguments to a shell, which has the programs of busybox.
	BusyboxImage = "docker.io/library/busybox:1"
)

// Names that stand in the manifests. The second one of EMQX is the same under another name, to upgrade to.
func operatorImages() []string { return []string{"docker.io/emqx-bg/emqx-bg-operator:0.1.0"} }
func emqxImages() []string {
	return []string{"docker.io/emqx/emqx:6.0.1", "docker.io/emqx/emqx:6.0.2"}
}

// makeImages makes all images of the cluster.
func makeImages(bin, out string) error {
	path := func(program string) string { return filepath.Join(bin, program) }
	shell := []image.File{{Path: "/bin/busybox", Source: busyboxBinary}, {Path: "/tmp", Mode: 0o1777}}
	for _, applet := range []string{"sh", "cat", "httpd", "mkdir", "rm", "sleep", "test", "touch", "true"} {
		shell = append(shell, image.File{Path: "/bin/" + applet, Link: "busybox"})
	}
	platform := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	images := map[string]*image.Image{
		"operator": image.Operator(path("emqx-bg-operator"), runtime.GOARCH, operatorImages()...),
		"coredns":  image.Program(path(coreDNSBinary), "/coredns", runtime.GOARCH, coreDNSImage),
		"emqx":     standIn(path(standInBinary)),
		"busybox": {
			Names: []string{BusyboxImage}, Platform: platform, Files: shell,
			Config: v1.ImageConfig{Entrypoint: []string{"/bin/sh", "-c"}, Env: []string{"PATH=/bin"}, WorkingDir: "/"},
		},
		// It only keeps the namespaces of a pod.
		"pause": {
			Names: []string{pauseImage}, Platform: platform, Files: shell[:1],
			Config: v1.ImageConfig{Entrypoint: []string{"/bin/busybox", "sleep", "2147483647"}, WorkingDir: "/"},
		},
	}
	var group errgroup.Group
	for name, made := range images {
		made.Plain = true
		group.Go(func() error {
			_, err := made.WriteFile(filepath.Join(out, name+".tar"))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, imagesComplete), nil, 0o600); err != nil {
		return fmt.Errorf("say that the images are made: %w", err)
	}
	return nil
}

// standIn is the image of the EMQX stand-in, with EMQX's user and directories.
func standIn(binary string) *image.Image {
	const user = 1000
	made := image.Program(binary, "/usr/bin/emqx", runtime.GOARCH, emqxImages()...)
	made.Config.User = "1000:1000"
	made.Config.WorkingDir = "/opt/emqx"
	made.Config.Entrypoint = []string{"/usr/bin/emqx", "--address", "0.0.0.0"}
	made.Config.Env = []string{"LOCAL_POD_ROOT=/"}
	made.Files = append(made.Files,
		image.File{Path: "/opt/emqx/data", Owner: user}, image.File{Path: "/opt/emqx/etc", Owner: user},
		image.File{Path: "/opt/emqx/log", Owner: user}, image.File{Path: "/tmp", Mode: 0o1777})
	return made
}
