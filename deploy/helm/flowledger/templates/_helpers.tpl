{{- define "flowledger.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "flowledger.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "flowledger.labels" -}}
{{ include "flowledger.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "flowledger.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "flowledger.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "flowledger.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{- define "flowledger.onDisk" -}}
{{- if or (eq .Values.database.kind "sqlite") (hasPrefix "/" .Values.artifacts.destination) }}true{{ end -}}
{{- end -}}

{{- define "flowledger.mostReplicas" -}}
{{- ternary .Values.autoscaling.maxReplicas .Values.replicas .Values.autoscaling.enabled -}}
{{- end -}}

{{/* What the schema cannot say: values that do not go together, each with what to do. */}}
{{- define "flowledger.check" -}}
{{- $values := .Values -}}
{{- $many := gt (int (include "flowledger.mostReplicas" .)) 1 -}}
{{- if and $values.autoscaling.enabled (lt (int $values.autoscaling.maxReplicas) (int $values.replicas)) -}}
{{- fail "autoscaling.maxReplicas is less than replicas: raise it, or set autoscaling.enabled=false" -}}
{{- end -}}
{{- if and (eq $values.database.kind "sqlite") $many -}}
{{- fail "SQLite is a file for one server: set replicas=1 and autoscaling.enabled=false, or database.kind=postgresql" -}}
{{- end -}}
{{- if and (eq $values.database.kind "postgresql") (not $values.database.existingSecret) -}}
{{- fail "database.existingSecret is empty: name the Secret that holds the database's address (kubectl create secret generic flowledger-database --from-file=uri)" -}}
{{- end -}}
{{- if and (eq $values.auth.kind "basic") (not $values.auth.existingSecret) -}}
{{- fail "auth.existingSecret is empty: name the Secret with admin-password, secret-key and metrics-token (kubectl create secret generic flowledger-auth --from-file=admin-password --from-file=secret-key --from-file=metrics-token)" -}}
{{- end -}}
{{- if and (eq $values.auth.kind "none") (ne $values.service.type "ClusterIP") (not $values.service.loadBalancerSourceRanges) -}}
{{- fail "auth.kind=none would show every prompt to whoever reaches the load balancer: set service.type=ClusterIP, or service.loadBalancerSourceRanges, or auth.kind=basic" -}}
{{- end -}}
{{- if and (include "flowledger.onDisk" .) (not $values.persistence.enabled) -}}
{{- fail "persistence.enabled=false would lose artifacts (and SQLite's file) with the pod: set artifacts.destination=s3://bucket and database.kind=postgresql, or persistence.enabled=true" -}}
{{- end -}}
{{- if and (include "flowledger.onDisk" .) $many (not $values.persistence.existingClaim) (ne $values.persistence.accessMode "ReadWriteMany") -}}
{{- fail "several replicas share the artifacts on the volume: set persistence.accessMode=ReadWriteMany, or artifacts.destination=s3://bucket" -}}
{{- end -}}
{{- if and $values.ingress.enabled (not $values.ingress.host) -}}
{{- fail "ingress.host is empty: give the name that browsers will use, such as llm.example.com" -}}
{{- end -}}
{{- end -}}

{{/* What the server is told of its database and of who may come. */}}
{{- define "flowledger.env" -}}
- name: MLFLOW_BACKEND_STORE_URI
{{- if eq .Values.database.kind "sqlite" }}
  value: sqlite:////var/lib/flowledger/mlflow.db
{{- else }}
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.existingSecret }}
      key: {{ .Values.database.key }}
{{- end }}
{{- if eq .Values.auth.kind "basic" }}
- name: FLOWLEDGER_SERVER_AUTH
  value: basic
- name: MLFLOW_AUTH_ADMIN_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .Values.auth.existingSecret }}
      key: admin-password
- name: MLFLOW_FLASK_SERVER_SECRET_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.auth.existingSecret }}
      key: secret-key
- name: FLOWLEDGER_SERVER_METRICS_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .Values.auth.existingSecret }}
      key: metrics-token
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "flowledger.allowedHosts" -}}
{{- $name := include "flowledger.fullname" . -}}
{{- $hosts := list "localhost" "127.0.0.1" "$(POD_IP)" $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) -}}
{{- if .Values.ingress.enabled -}}
{{- $hosts = append $hosts .Values.ingress.host -}}
{{- end -}}
{{- range $host := concat $hosts .Values.allowedHosts -}}
{{ $host }},{{ $host }}:*,
{{- end -}}
{{- end -}}

{{- define "flowledger.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "flowledger.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
