// Package image writes container images made from scratch, without a container engine: one layer with the files that are
// named, as an archive that follows the OCI image layout and that `docker load` reads, too. The same files always give the
// same bytes: no time, user or order of the machine gets into them.
package image
