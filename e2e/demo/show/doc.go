// Package show shows an upgrade to people: live on a terminal or in lines, as a summary of its figures with their limits,
// and as a picture of its time series. What it shows comes from package measure.
package show
