// Package version tells which build of the operator runs.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version is the release, set by the linker; "dev" for other builds.
var Version = "dev" //nolint:gochecknoglobals // The linker sets nothing else.

// Info identifies a build.
type Info struct {
	// Version is the release, or "dev".
	Version string
	// Revision is the commit that was built, empty when the build did not record it.
	Revision string
	// Go is the Go release that built it.
	Go string
}

// Get returns what is known of this build.
func Get() Info {
	info := Info{Version: Version, Go: runtime.Version()}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range build.Settings {
			if setting.Key == "vcs.revision" {
				info.Revision = setting.Value
			}
		}
	}
	return info
}

// String is the build in one line.
func (i Info) String() string {
	if i.Revision == "" {
		return fmt.Sprintf("emqx-bg-operator %s (%s)", i.Version, i.Go)
	}
	return fmt.Sprintf("emqx-bg-operator %s, commit %s (%s)", i.Version, i.Revision, i.Go)
}
