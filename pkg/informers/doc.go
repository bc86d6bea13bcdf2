// Package informers holds every watch of the operator: the caches with their indexes, what is dropped from objects
// before they are kept, and the one table that says which event of which kind wakes which key.
//
// Only objects that carry the operator's label are watched, besides the EMQX resources and, where that is allowed, Nodes. Of
// Secrets and ConfigMaps only the metadata is kept: their content, some of it secret, is read when it is needed.
package informers
