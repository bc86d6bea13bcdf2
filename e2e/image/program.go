package image

import v1 "github.com/opencontainers/image-spec/specs-go/v1"

// nobody is the user that images run as unless a pod says otherwise.
const nobody = "65532:65532"

// Program is an image with nothing but a static program, which runs as a user without rights.
func Program(binary, path, architecture string, names ...string) *Image {
	return &Image{
		Names:    names,
		Platform: v1.Platform{OS: "linux", Architecture: architecture},
		Config:   v1.ImageConfig{User: nobody, Entrypoint: []string{path}, WorkingDir: "/"},
		Files:    []File{{Path: path, Source: binary}},
	}
}

// Operator is the operator's image.
func Operator(binary, architecture string, names ...string) *Image {
	return Program(binary, "/emqx-bg-operator", architecture, names...)
}
