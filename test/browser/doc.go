// Package browser tests the web page of the cloud-controller-manager in a real
// browser, Debian's Chromium without a window: that its scripts run under its
// policy, draw what the report says, and follow what is searched for. The browser
// is fetched, 125 MB, so this runs with -browser only: `make page`. With
// -pictures DIR it writes the pictures of the documentation there.
package browser
