// Package schema holds the CRD against the types that the operator decodes, with the API server's own code.
package schema
