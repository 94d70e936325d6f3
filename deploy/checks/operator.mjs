// Checks manifests of the Prometheus Operator, one JSON a line, by the schemas of its own types.
import { createInterface } from "node:readline";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

const types = { PrometheusRule, ServiceMonitor };
for await (const line of createInterface({ input: process.stdin })) {
  const manifest = JSON.parse(line);
  new types[manifest.kind](manifest).validate();
  console.log(`${manifest.kind} ${manifest.metadata.name}`);
}
