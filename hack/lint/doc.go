// Package lint pins the tools that check the code. They are a module of their own, because they have many dependencies
// and nothing that is built needs them.
package lint
