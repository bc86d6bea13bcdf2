package resources

// JSONPatch is an operation of a JSON patch (RFC 6902).
type JSONPatch struct {
	// Operation is what is done, such as "replace", Path where, as a JSON pointer, and Value with what.
	Operation string `json:"op"`
	Path      string `json:"path"`
	Value     any    `json:"value"`
}

// Replace is the operation that puts another value in the place of one that there is.
func Replace(path string, value any) JSONPatch { return JSONPatch{"replace", path, value} }

// Put is the operation that puts a value in its place, whether there is another or not.
func Put(path string, value any) JSONPatch { return JSONPatch{"add", path, value} }
