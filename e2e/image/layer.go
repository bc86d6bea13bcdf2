package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// File is a file, a link or a directory of an image.
type File struct {
	// Path is where it lies in the image.
	Path string
	// Source is the file of this machine that it is; empty for a directory or a link.
	Source string
	// Link is where a symbolic link leads to.
	Link string
	// Mode are the permissions; zero means 0755.
	Mode int64
	// Owner is the user and the group that it belongs to.
	Owner int
}

// entry is a file, a link or a directory of a tar archive.
type entry struct {
	path, link string
	directory  bool
	mode       int64
	owner      int
	content    []byte
}

// layer makes the image's only layer and returns it with the digest of what is in it.
func (i *Image) layer() (blob, digest.Digest, error) {
	entries, err := read(i.Files)
	if err != nil {
		return blob{}, "", err
	}
	var plain bytes.Buffer
	if err := writeTar(&plain, entries); err != nil {
		return blob{}, "", err
	}
	diffID := digestOf(plain.Bytes())
	if i.Plain {
		return newBlob(v1.MediaTypeImageLayer, plain.Bytes()), diffID, nil
	}
	var compressed bytes.Buffer
	writer := gzip.NewWriter(&compressed)
	if _, err := io.Copy(writer, &plain); err != nil {
		return blob{}, "", fmt.Errorf("compress: %w", err)
	}
	if err := writer.Close(); err != nil {
		return blob{}, "", fmt.Errorf("compress: %w", err)
	}
	return newBlob(v1.MediaTypeImageLayerGzip, compressed.Bytes()), diffID, nil
}

// read reads the files and adds the directories above them.
func read(files []File) ([]entry, error) {
	byPath := map[string]entry{}
	for _, file := range files {
		e := entry{path: strings.TrimPrefix(path.Clean("/"+file.Path), "/"), link: file.Link, mode: cmp.Or(file.Mode, 0o755), owner: file.Owner}
		switch {
		case e.path == "":
			return nil, errors.New("a file of an image needs a path")
		case file.Source != "":
			var err error
			if e.content, err = os.ReadFile(file.Source); err != nil {
				return nil, fmt.Errorf("read a file of an image: %w", err)
			}
		case file.Link == "":
			e.directory = true
		}
		byPath[e.path] = e
		for above := path.Dir(e.path); above != "."; above = path.Dir(above) {
			if _, named := byPath[above]; !named {
				byPath[above] = entry{path: above, directory: true, mode: 0o755}
			}
		}
	}
	entries := make([]entry, 0, len(byPath))
	for _, e := range byPath {
		entries = append(entries, e)
	}
	return entries, nil
}

// writeTar writes the entries in the order of their paths.
func writeTar(out io.Writer, entries []entry) error {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.path, b.path) })
	writer := tar.NewWriter(out)
	for _, e := range entries {
		header := tar.Header{
			Typeflag: tar.TypeReg, Name: e.path, Linkname: e.link, Mode: e.mode, Uid: e.owner, Gid: e.owner,
			Size: int64(len(e.content)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR,
		}
		switch {
		case e.directory:
			header.Typeflag, header.Name = tar.TypeDir, e.path+"/"
		case e.link != "":
			header.Typeflag = tar.TypeSymlink
		}
		if err := writer.WriteHeader(&header); err != nil {
			return fmt.Errorf("write %s: %w", e.path, err)
		}
		if _, err := writer.Write(e.content); err != nil {
			return fmt.Errorf("write %s: %w", e.path, err)
		}
	}
	if err := writer.Close(); err != nil {
		return fmt.Errorf("end an archive: %w", err)
	}
	return nil
}
