package main

import (
	"os"

	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
)

// newLogger returns the operator's logger and makes client-go use it, too.
func newLogger(o options) klog.Logger {
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoder := zapcore.NewJSONEncoder(encoding)
	if o.logFormat == "console" {
		encoding.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(encoding)
	}
	// logr's levels count up, zap's down: level 2 of logr is -2 of zap.
	core := zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), zap.NewAtomicLevelAt(zapcore.Level(-o.logLevel))) //nolint:gosec // Small.
	logger := zapr.NewLogger(zap.New(core))
	klog.SetLoggerWithOptions(logger, klog.ContextualLogger(true))
	return logger
}
