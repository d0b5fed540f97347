// Package kit is what end-to-end tests share: a lab with pools and pods, Services
// made and edited through the API server, packets from clients, events, and the
// proof that nothing is left of what is gone.
//
// Every wait polls, and ends a test after Patience: nothing is measured here.
package kit
