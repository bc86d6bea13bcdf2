// Package hocon reads the configuration language of EMQX, a dialect of HOCON, as far as an operator must
// understand it: which listeners there are, on which ports, what changed, and whether the text is valid at all.
//
// It reads what EMQX reads: comments with # and //, optional commas and root braces, =, : or nothing before {,
// dotted and quoted keys, merging of repeated objects, triple-quoted strings (and the indented form that opens
// with three quotes and a tilde), unquoted strings, concatenation and +=. Durations, sizes and percentages are
// strings. It evaluates nothing: substitutions such as ${x} and ${?x} are kept as they are, and includes are noted
// on the object they stand in, not followed.
//
// Reading takes time linear in the text; depth and size are bounded by MaxDepth and MaxBytes. Errors are *Error and
// carry line, column and what was expected.
package hocon
