package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/image"
)

const name = "docker.io/example/program:1"

// files reads a tar archive.
func files(t *testing.T, archive io.Reader) map[string][]byte {
	t.Helper()
	contents := map[string][]byte{}
	for reader := tar.NewReader(archive); ; {
		header, err := reader.Next()
		if err == io.EOF { //nolint:errorlint // the reader says exactly this
			return contents
		}
		require.NoError(t, err)
		require.Zero(t, header.ModTime.Unix(), header.Name)
		content, err := io.ReadAll(reader)
		require.NoError(t, err)
		contents[header.Name] = content
	}
}

func TestArchiveFollowsTheLayout(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(binary, []byte("a program"), 0o600))
	for _, c := range []struct {
		reason string
		plain  bool
	}{{reason: "compressed"}, {reason: "plain", plain: true}} {
		t.Run(c.reason, func(t *testing.T) {
			made := image.Program(binary, "/bin/program", "arm64", name, "docker.io/example/program:2")
			made.Plain = c.plain
			made.Files = append(made.Files, image.File{Path: "/data", Owner: 1000}, image.File{Path: "/bin/link", Link: "program"})
			var archive bytes.Buffer
			told, err := made.Write(&archive)
			require.NoError(t, err)
			entries := files(t, &archive)
			blob := func(descriptor v1.Descriptor) []byte {
				content := entries["blobs/sha256/"+descriptor.Digest.Encoded()]
				require.Equal(t, descriptor.Digest, digest.FromBytes(content))
				require.Len(t, content, int(descriptor.Size))
				return content
			}
			var layout v1.ImageLayout
			require.NoError(t, json.Unmarshal(entries[v1.ImageLayoutFile], &layout))
			require.Equal(t, v1.ImageLayoutVersion, layout.Version)
			var index v1.Index
			require.NoError(t, json.Unmarshal(entries[v1.ImageIndexFile], &index))
			require.Len(t, index.Manifests, 2, "one for each name")
			require.Equal(t, told, index.Manifests[0].Digest)
			require.Equal(t, "2", index.Manifests[1].Annotations[v1.AnnotationRefName])
			var manifest v1.Manifest
			require.NoError(t, json.Unmarshal(blob(index.Manifests[0]), &manifest))
			var config v1.Image
			require.NoError(t, json.Unmarshal(blob(manifest.Config), &config))
			require.Equal(t, "arm64", config.Architecture)
			require.Equal(t, []string{"/bin/program"}, config.Config.Entrypoint)
			layer := io.Reader(bytes.NewReader(blob(manifest.Layers[0])))
			if !c.plain {
				layer, err = gzip.NewReader(layer)
				require.NoError(t, err)
			}
			content, err := io.ReadAll(layer)
			require.NoError(t, err)
			require.Equal(t, []digest.Digest{digest.FromBytes(content)}, config.RootFS.DiffIDs)
			in := files(t, bytes.NewReader(content))
			require.Equal(t, "a program", string(in["bin/program"]))
			require.Contains(t, in, "bin/")
			require.Contains(t, in, "data/")
			require.Contains(t, in, "bin/link")
			require.Contains(t, string(entries["manifest.json"]), name, "for older releases of docker")
		})
	}
}

// TestOperatorsImageIsReproducible builds the operator and its image in two places, with other times of files, and wants
// the same digest; and another one for another program, so that the test can tell.
func TestOperatorsImageIsReproducible(t *testing.T) {
	build := func(version string) digest.Digest {
		directory := t.TempDir()
		binary := filepath.Join(directory, "emqx-bg-operator")
		// As the Makefile does.
		command := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false",
			"-ldflags", "-s -w -X github.com/emqx-bg/emqx-bg-operator/pkg/version.Version="+version, "-o", binary, "./cmd/emqx-bg-operator")
		command.Dir, command.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
		output, err := command.CombinedOutput()
		require.NoError(t, err, string(output))
		long := time.Now().Add(-time.Duration(len(directory)) * time.Hour)
		require.NoError(t, os.Chtimes(binary, long, long))
		told, err := image.Operator(binary, runtime.GOARCH, name).WriteFile(filepath.Join(directory, "image.tar"))
		require.NoError(t, err)
		return told
	}
	first := build("1.0.0")
	require.Equal(t, first, build("1.0.0"))
	require.NotEqual(t, first, build("1.0.1"))
}

func TestWhatCannotBeAnImageIsSaid(t *testing.T) {
	_, err := image.Program("absent", "/program", "amd64", name).Write(io.Discard)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = image.Program("absent", "/program", "amd64").Write(io.Discard)
	require.ErrorContains(t, err, "needs a name")
	_, err = (&image.Image{Names: []string{name}, Files: []image.File{{Path: "/"}}}).Write(io.Discard)
	require.ErrorContains(t, err, "needs a path")
}
