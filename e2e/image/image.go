package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// containerdName is the annotation by which containerd knows an image's full name.
const containerdName = "io.containerd.image.name"

// Image says what an image is made of.
type Image struct {
	// Names are the image's full names, with registry and tag.
	Names []string
	// Platform is what it runs on.
	Platform v1.Platform
	// Config is how it is run.
	Config v1.ImageConfig
	// Files are its files. Directories above them are made, readable for everybody.
	Files []File
	// Plain leaves the layer uncompressed, which is faster where the archive is not kept.
	Plain bool
}

// blob is a part of the archive that is named by its digest.
type blob struct {
	descriptor v1.Descriptor
	content    []byte
}

func newBlob(mediaType string, content []byte) blob {
	return blob{
		descriptor: v1.Descriptor{MediaType: mediaType, Digest: digestOf(content), Size: int64(len(content))},
		content:    content,
	}
}

// digestOf is the name of a content.
func digestOf(content []byte) digest.Digest {
	sum := sha256.Sum256(content)
	return digest.NewDigestFromBytes(digest.SHA256, sum[:])
}

func jsonBlob(mediaType string, value any) (blob, error) {
	content, err := json.Marshal(value)
	if err != nil {
		return blob{}, fmt.Errorf("encode the image: %w", err)
	}
	return newBlob(mediaType, content), nil
}

// path is where the blob lies in the archive.
func (b *blob) path() string {
	return v1.ImageBlobsDir + "/" + b.descriptor.Digest.Algorithm().String() + "/" + b.descriptor.Digest.Encoded()
}

// WriteFile writes the archive to a file, which is complete once it is there, and returns the digest of the image's manifest.
func (i *Image) WriteFile(path string) (digest.Digest, error) {
	var archive bytes.Buffer
	manifest, err := i.Write(&archive)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // it is for everybody
		return "", fmt.Errorf("make the directory of an image: %w", err)
	}
	temporary := path + ".tmp"
	if err := os.WriteFile(temporary, archive.Bytes(), 0o644); err != nil { //nolint:gosec // it is for everybody
		return "", fmt.Errorf("write an image: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return "", errors.Join(fmt.Errorf("write an image: %w", err), os.Remove(temporary))
	}
	return manifest, nil
}

// Write writes the archive and returns the digest of the image's manifest.
func (i *Image) Write(out io.Writer) (digest.Digest, error) {
	if len(i.Names) == 0 {
		return "", errors.New("an image needs a name")
	}
	layer, diffID, err := i.layer()
	if err != nil {
		return "", fmt.Errorf("make the layer of image %s: %w", i.Names[0], err)
	}
	config, err := jsonBlob(v1.MediaTypeImageConfig, v1.Image{
		Platform: i.Platform, Config: i.Config, RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
	})
	if err != nil {
		return "", err
	}
	manifest, err := jsonBlob(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: config.descriptor, Layers: []v1.Descriptor{layer.descriptor},
	})
	if err != nil {
		return "", err
	}
	entries, err := i.entries(config, layer, manifest)
	if err != nil {
		return "", err
	}
	return manifest.descriptor.Digest, writeTar(out, entries)
}

// entries are the files of the archive.
func (i *Image) entries(config, layer, manifest blob) ([]entry, error) {
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	for _, name := range i.Names {
		named := manifest.descriptor
		named.Platform = &i.Platform
		named.Annotations = map[string]string{v1.AnnotationRefName: name[strings.LastIndex(name, ":")+1:], containerdName: name}
		index.Manifests = append(index.Manifests, named)
	}
	entries := []entry{}
	for _, b := range []blob{config, layer, manifest} {
		entries = append(entries, entry{path: b.path(), mode: 0o644, content: b.content})
	}
	for path, value := range map[string]any{
		v1.ImageLayoutFile: v1.ImageLayout{Version: v1.ImageLayoutVersion},
		v1.ImageIndexFile:  index,
		// Docker's own list, which its older releases read instead.
		"manifest.json": []any{map[string]any{"Config": config.path(), "RepoTags": i.Names, "Layers": []string{layer.path()}}},
	} {
		content, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", path, err)
		}
		entries = append(entries, entry{path: path, mode: 0o644, content: content})
	}
	return entries, nil
}
