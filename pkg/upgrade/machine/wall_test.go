package machine

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWall: what decides knows no client, no informer and no clock. What it may import is listed, so that a new import is
// a decision.
func TestWall(t *testing.T) {
	allowed := []string{
		"cmp", "encoding/json", "fmt", "iter", "maps", "slices", "strings", "time", "reflect",
		"k8s.io/api/core/v1", "k8s.io/apimachinery/pkg/api/equality", "k8s.io/apimachinery/pkg/api/meta",
		"k8s.io/apimachinery/pkg/apis/meta/v1", "k8s.io/apimachinery/pkg/types", "k8s.io/apimachinery/pkg/util/intstr", "k8s.io/apimachinery/pkg/util/version",
		"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1", "github.com/emqx-bg/emqx-bg-operator/pkg/emqx",
		"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate", "github.com/emqx-bg/emqx-bg-operator/pkg/resources",
	}
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		for _, imported := range file.Imports {
			path, err := strconv.Unquote(imported.Path.Value)
			require.NoError(t, err)
			if !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", name, path)
			}
		}
		ast.Inspect(file, func(node ast.Node) bool {
			if call, ok := node.(*ast.SelectorExpr); ok {
				called, isPackage := call.X.(*ast.Ident)
				if isPackage && called.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "After", "Sleep", "NewTimer", "Tick"}, call.Sel.Name) {
					t.Errorf("%s asks the clock: time.%s", name, call.Sel.Name)
				}
				if isPackage && called.Name == "evacuate" && slices.Contains([]string{"NewDriver", "Driver", "API"}, call.Sel.Name) {
					t.Errorf("%s uses the driver", name)
				}
			}
			return true
		})
	}
}
