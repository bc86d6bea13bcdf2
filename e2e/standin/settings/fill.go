package settings

// Fill gives a root of a change what EMQX's check adds to it: the default of every key that it does not name, and the
// default listeners. So a change resets what it leaves out.
func Fill(root string, value any) any {
	body, isTree := value.(Tree)
	if !isTree {
		return value
	}
	if root == "listeners" {
		return fillListeners(body)
	}
	filled := Defaults().Sub(root).Clone()
	filled.Merge(body)
	return filled
}

// fillListeners leaves out listeners that are null, as EMQX does.
func fillListeners(body Tree) Tree {
	defaults := Defaults().Sub("listeners")
	filled := Tree{}
	for _, kind := range listenerTypes() {
		names := body.Sub(kind).Clone()
		for name, value := range names {
			if value == nil {
				delete(names, name)
			}
		}
		for name, value := range defaults.Sub(kind) {
			if _, given := names[name]; !given {
				names[name] = value
			}
		}
		for name, value := range names {
			if own, isTree := value.(Tree); isTree {
				filled.Set(listenerOf(kind, name, own).Config, kind, name)
			} else {
				filled.Set(value, kind, name)
			}
		}
	}
	return filled
}

// Changed is what a root is after a change of it.
func Changed(root string, before, change any, replace bool) any {
	filled := Fill(root, change)
	if replace {
		return filled
	}
	switch filled := filled.(type) {
	case Tree:
		merged := Tree{}
		if old, isTree := before.(Tree); isTree {
			merged = old.Clone()
		}
		merged.Merge(filled)
		return merged
	case []any:
		if root == "authentication" {
			old, _ := before.([]any)
			return mergeChains(old, filled)
		}
	}
	return filled
}

// mergeChains puts authenticators in the place of those of the same kind, and others at the end.
func mergeChains(before, change []any) []any {
	merged := append([]any{}, before...)
	for _, item := range change {
		at := -1
		for i, old := range merged {
			if authenticatorOf(old) == authenticatorOf(item) {
				at = i
			}
		}
		if at < 0 {
			merged = append(merged, item)
		} else {
			merged[at] = item
		}
	}
	return merged
}

// authenticatorOf is EMQX's name of an authenticator, such as password_based:built_in_database.
func authenticatorOf(item any) string {
	tree, _ := item.(Tree)
	name := tree.Text("", "mechanism")
	if backend := tree.Text("", "backend"); backend != "" {
		name += ":" + backend
	}
	return name
}
