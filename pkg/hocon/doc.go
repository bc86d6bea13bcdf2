// Package hocon reads the configuration language of EMQX as EMQX does. That is a dialect of HOCON, and not a lenient one:
// a text that another HOCON reader takes may keep EMQX from starting, so this one refuses what EMQX refuses.
//
// It goes through EMQX's own stages, in its order:
//
//	scan       text → tokens            scan.go, quoted.go   the longest match wins; no /, ' or . outside of quotes
//	prepare    tokens → tokens          tokens.go            what is a name, where a value ends
//	parse      tokens → nodes           parse.go             the grammar; blanks and ends of lines do not count
//	resolve    substitutions            resolve.go           ${x} and ${?x}, looked up in this text only
//	evaluate   concatenation, merging   evaluate.go, merge.go
//
// The recorded verdicts of EMQX's reader in testdata are the contract. EMQX 5.8 to 6.3 differ from the newest reader in
// one thing: they leave the \u of JSON as it is, which is replaced, and refused when it is none, here.
//
// What the text alone does not say is not guessed: an included file may be there or not. Parse takes it for absent, as
// EMQX does; ParseOpen gives Unknown for what depends on it. The environment is no source of substitutions to EMQX.
//
// Time and memory are linear in the text: it is kept as nodes of twenty bytes, all garbage included takes less than twenty
// times its size, and what substitutions add is bounded. Size and depth are bounded by MaxBytes and MaxDepth. Errors are
// *Error and carry stage, line, column and reason.
package hocon
