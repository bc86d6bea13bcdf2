package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Source is where a node's configuration comes from.
type Source struct {
	// Root is put before absolute paths of the configuration and of its files; empty outside of a pod.
	Root string
	// File is the configuration file; empty stands for /opt/emqx/etc/emqx.conf under Root, which need not exist.
	File string
	// Environ is the environment, as os.Environ gives it.
	Environ []string
}

// Layers is a configuration before its layers are laid over each other.
type Layers struct {
	Base        Tree // built-in defaults and base.hocon
	File        Tree // emqx.conf
	Environment Tree // EMQX_* variables
}

const etc = "/opt/emqx/etc"

// Load reads the files and the environment. The error wraps a *SyntaxError when a file is none that EMQX starts
// with.
func Load(source Source) (Layers, error) {
	layers := Layers{Base: Defaults(), File: Tree{}, Environment: fromEnvironment(source.Environ)}
	if err := refusedBind(layers.Environment); err != nil { // unknown types of listeners are not refused there
		return layers, fmt.Errorf("environment: %w", err)
	}
	if source.Root != "" {
		base, err := readFile(filepath.Join(source.Root, etc, "base.hocon"), true)
		if err != nil {
			return layers, err
		}
		layers.Base.Merge(base)
	}
	path, optional := source.File, false
	if path == "" && source.Root != "" {
		path, optional = filepath.Join(source.Root, etc, "emqx.conf"), true
	}
	if path != "" {
		file, err := readFile(path, optional)
		if err != nil {
			return layers, err
		}
		layers.File = file
	}
	return layers, nil
}

func readFile(path string, optional bool) (Tree, error) {
	data, err := os.ReadFile(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return Tree{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if refused := refusal(string(data)); refused != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, refused)
	}
	tree, err := Parse(string(data))
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	if err := refusedListener(tree); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return tree, nil
}

// fromEnvironment turns EMQX_A__B__C=value into a.b.c = value.
func fromEnvironment(environ []string) Tree {
	tree := Tree{}
	list := append([]string(nil), environ...)
	sort.Strings(list)
	for _, pair := range list {
		name, value, found := strings.Cut(pair, "=")
		if !found || !strings.HasPrefix(name, "EMQX_") || !strings.Contains(name, "__") {
			continue
		}
		path := strings.Split(strings.ToLower(strings.TrimPrefix(name, "EMQX_")), "__")
		tree.Set(parseValue(value), path...)
	}
	return tree
}

// Effective lays changes made by API between the base and the file.
func (l Layers) Effective(changes Tree) Tree {
	tree := l.Base.Clone()
	for _, upper := range []Tree{changes, l.File, l.Environment} {
		for _, kind := range listenerTypes() {
			for _, name := range upper.Sub("listeners", kind).Keys() {
				delete(tree.Sub("listeners", kind), name) // who configures a listener gets none of the built-in one
			}
		}
	}
	tree.Merge(changes)
	tree.Merge(l.File)
	tree.Merge(l.Environment)
	return tree
}
