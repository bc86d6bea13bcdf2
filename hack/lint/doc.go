// Package lint pins the tools that check the code. They are a module of their own: their dependencies are many and
// concern nothing that is built.
package lint
