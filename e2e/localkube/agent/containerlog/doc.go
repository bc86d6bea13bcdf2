// Package containerlog keeps what containers print, in the format of container runtimes, so that the kubelet's own
// reader serves it: a file for each start of a container, of which the last two are kept, each bounded in size.
package containerlog
