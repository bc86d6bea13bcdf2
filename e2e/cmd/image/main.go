// Command image makes the operator's container image of its static binary, without a container engine.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"

	"github.com/emqx-bg/emqx-bg-operator/e2e/image"
)

func main() {
	binary := flag.String("binary", "", "the operator, built without cgo")
	name := flag.String("name", "", "the image's full name, with registry and tag")
	architecture := flag.String("architecture", runtime.GOARCH, "what the binary was built for, as Go calls it")
	out := flag.String("out", "", "the archive to write")
	flag.Parse()
	digest, err := image.Operator(*binary, *architecture, *name).WriteFile(*out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
	fmt.Printf("%s  %s  %s\n", digest, *name, *out)
}
