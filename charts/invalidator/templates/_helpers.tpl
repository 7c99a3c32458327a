{{- define "invalidator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "invalidator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "invalidator.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What never changes over a release's life, for selectors. Takes (dict "root" $ "role" "daemon"). */}}
{{- define "invalidator.selector" -}}
app.kubernetes.io/name: {{ include "invalidator.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "invalidator.labels" -}}
{{ include "invalidator.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "invalidator.image" -}}
{{- with .Values.image -}}
{{- with .registry }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "invalidator.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "invalidator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* A setting of the daemon, or what it is where nobody gives it: (list $ "source" "kind" "outbox"). */}}
{{- define "invalidator.setting" -}}
{{- $section := get (index . 0).Values.config (index . 1) | default dict -}}
{{- get $section (index . 2) | default (index . 3) -}}
{{- end -}}

{{/* Whole seconds in "250ms", "10s", "1m", rounded up. */}}
{{- define "invalidator.seconds" -}}
{{- $number := regexFind "^[0-9.]+" . | float64 -}}
{{- $unit := regexReplaceAll "^[0-9.]+ *" . "" -}}
{{- mulf $number (get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) $unit) | ceil | int64 -}}
{{- end -}}

{{- define "invalidator.source" -}}
{{- include "invalidator.setting" (list . "source" "kind" "outbox") -}}
{{- end -}}

{{- define "invalidator.port" -}}
{{- include "invalidator.setting" (list . "http" "port" 8625) | float64 | int64 -}}
{{- end -}}

{{/* What fits no schema because it is about two values: refused here, in a sentence that says what to do. */}}
{{- define "invalidator.checked" -}}
{{- $kafka := eq (include "invalidator.source" .) "kafka" -}}
{{- $config := .Values.config -}}
{{- if not (or .Values.secrets.store.name (dig "store" "url" "" $config)) -}}
{{- fail "no store is given: name a Secret in secrets.store.name that holds its URL, or give config.store.url (without a password)" -}}
{{- end -}}
{{- if not (or .Values.secrets.caches.name $config.caches) -}}
{{- fail "no cache is given: name a Secret in secrets.caches.name that holds the nodes' URLs, or give config.caches (without passwords)" -}}
{{- end -}}
{{- if not (or $config.entities $config.rules) -}}
{{- fail "nothing is declared as cached: give config.entities, with the module in modules or in the image, or config.rules" -}}
{{- end -}}
{{- if and (or $kafka .Values.relay.enabled) (not (dig "kafka" "bootstrap" list $config)) -}}
{{- fail "no broker is given: set config.kafka.bootstrap" -}}
{{- end -}}
{{- if and $kafka (not (dig "kafka_source" "topics" list $config)) -}}
{{- fail "no topic is given: set config.kafka_source.topics" -}}
{{- end -}}
{{- if and .Values.relay.enabled (not (dig "relay" "topic" "" $config)) -}}
{{- fail "relay.enabled needs config.relay.topic, the topic that it fills" -}}
{{- end -}}
{{- if and (eq .Values.kind "Deployment") (not $kafka) (gt (int .Values.replicas) 1) -}}
{{- fail "kind Deployment with the source outbox takes replicas: 1, because each daemon there needs a lasting name of its own; take kind StatefulSet for more" -}}
{{- end -}}
{{- if and (ne .Values.autoscaling.kind "none") (not $kafka) -}}
{{- fail "autoscaling needs config.source.kind kafka: with the outbox every daemon reads everything, and more of them are no faster" -}}
{{- end -}}
{{- if lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas) -}}
{{- fail "autoscaling.maxReplicas is less than autoscaling.minReplicas" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled -}}
{{- fail "serviceMonitor and podMonitor together would count everything twice: enable one" -}}
{{- end -}}
{{- if ne (empty .Values.secrets.tls.certKey) (empty .Values.secrets.tls.keyKey) -}}
{{- fail "secrets.tls.certKey and secrets.tls.keyKey are given together, or not at all" -}}
{{- end -}}
{{- if and $config.consumer (not $kafka) (gt (int .Values.replicas) 1) -}}
{{- fail "config.consumer names one daemon: with the source outbox and more replicas the pods' names are taken, leave it out" -}}
{{- end -}}
{{- $drain := include "invalidator.seconds" (include "invalidator.setting" (list . "apply" "drain" "10s")) | int -}}
{{- $commit := include "invalidator.seconds" (include "invalidator.setting" (list . "kafka_source" "commit_timeout" "10s")) | int -}}
{{- $least := add .Values.preStopSeconds $drain $commit 5 | int -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) $least -}}
{{- fail (printf "terminationGracePeriodSeconds is %d: preStopSeconds, config.apply.drain, the last commit and 5 s for a batch take %d" (int .Values.terminationGracePeriodSeconds) $least) -}}
{{- end -}}
{{- end -}}

{{/* A value as TOML writes it. Text, numbers and lists of them are the same as in JSON; a table has "=". */}}
{{- define "invalidator.toml" -}}
{{- if kindIs "map" . -}}
{ {{- range $i, $name := keys . | sortAlpha }}{{ if $i }}, {{ end }}{{ $name | toJson }} = {{ include "invalidator.toml" (get $ $name) }}{{ end -}} }
{{- else -}}
{{ . | toJson }}
{{- end -}}
{{- end -}}

{{/* The configuration file: what is given, and over it what the chart knows better. */}}
{{- define "invalidator.config" -}}
{{- $all := deepCopy .Values.config -}}
{{- $own := dict "http" (dict "host" "0.0.0.0" "port" (include "invalidator.port" . | int64)) -}}
{{- with .Values.secrets -}}
{{- if .store.name }}{{ $_ := set $own "store" (dict "url_file" "/etc/invalidator/secrets/store/url") }}{{ end -}}
{{- if .caches.name }}{{ $_ := set $own "caches_file" "/etc/invalidator/secrets/caches/urls" }}{{ end -}}
{{- $kafka := dict -}}
{{- if and .sasl.name (not .sasl.tokenKey) }}{{ $_ := set $kafka "password_file" "/etc/invalidator/secrets/sasl/password" }}{{ end -}}
{{- if and .sasl.name .sasl.tokenKey }}{{ $_ := set $own "kafka_source" (dict "token_file" "/etc/invalidator/secrets/sasl/token") }}{{ end -}}
{{- if .tls.name -}}
{{- if .tls.caKey }}{{ $_ := set $kafka "ca_file" "/etc/invalidator/secrets/tls/ca.crt" }}{{ end -}}
{{- if .tls.certKey }}{{ $_ := set $kafka "cert_file" "/etc/invalidator/secrets/tls/tls.crt" }}{{ $_ := set $kafka "key_file" "/etc/invalidator/secrets/tls/tls.key" }}{{ end -}}
{{- end -}}
{{- $_ := set $own "kafka" $kafka -}}
{{- end -}}
{{- $log := merge (dict) (get $all "log" | default dict) (dict "format" "json") -}}
{{- $_ := set $all "log" $log -}}
{{- $all = mustMergeOverwrite $all $own -}}
{{- range $name := keys $all | sortAlpha }}
{{- $value := get $all $name }}
{{- if and (not (kindIs "map" $value)) (ne $name "rules") }}
{{ $name }} = {{ include "invalidator.toml" $value }}
{{- end }}
{{- end }}
{{- range $name := keys $all | sortAlpha }}
{{- $value := get $all $name }}
{{- if and (kindIs "map" $value) $value }}

[{{ $name }}]
{{- range $inner := keys $value | sortAlpha }}
{{ $inner }} = {{ include "invalidator.toml" (get $value $inner) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $all.rules }}

[[rules]]
{{- $rule := . }}
{{- range $inner := keys $rule | sortAlpha }}
{{ $inner }} = {{ include "invalidator.toml" (get $rule $inner) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A pod: (dict "root" $ "role" "daemon", "relay" or "verifier" "resources" …). */}}
{{- define "invalidator.pod" -}}
{{- $values := .root.Values -}}
{{- $daemon := eq .role "daemon" -}}
metadata:
  labels:
    {{- include "invalidator.labels" . | nindent 4 }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: invalidator
    checksum/config: {{ include (print .root.Template.BasePath "/configmap.yaml") .root | sha256sum }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "invalidator.serviceAccount" .root }}
  automountServiceAccountToken: false
  enableServiceLinks: false # a service named "invalidator" would give INVALIDATOR_… variables, which are settings
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  {{- with $values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with $values.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and $daemon $values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range $values.topologySpreadConstraints }}
    - {{- toYaml . | nindent 6 }}
      {{- if not .labelSelector }}
      labelSelector:
        matchLabels:
          {{- include "invalidator.selector" $ | nindent 10 }}
      {{- end }}
    {{- end }}
  {{- end }}
  {{- with $values.extraInitContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: invalidator
      image: {{ include "invalidator.image" .root | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: [invalidator, {{ get (dict "daemon" "run" "relay" "relay" "verifier" "verify") .role }}, --config, /etc/invalidator/invalidator.toml]
      workingDir: /app
      {{- with $values.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      env:
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        {{- if $daemon }}
        {{- $kafka := eq (include "invalidator.source" .root) "kafka" }}
        {{- $named := eq $values.kind "StatefulSet" }}
        {{- if and $kafka $named }}
        - name: INVALIDATOR_KAFKA_SOURCE__INSTANCE # static membership: a restart moves no partitions
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        {{- end }}
        {{- if $values.config.consumer }}
        {{- else if $kafka }}
        - name: INVALIDATOR_CONSUMER # names the group and the positions on the nodes: two releases must not share them
          value: {{ include "invalidator.fullname" .root | quote }}
        {{- else if $named }}
        - name: INVALIDATOR_CONSUMER # each daemon of the outbox has a position of its own
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        {{- end }}
        {{- end }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - {name: http, containerPort: {{ include "invalidator.port" .root }}, protocol: TCP}
      startupProbe:
        httpGet: {path: /healthz, port: http}
        {{- toYaml $values.probes.startup | nindent 8 }}
      livenessProbe:
        httpGet: {path: /healthz, port: http}
        {{- toYaml $values.probes.liveness | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        {{- toYaml $values.probes.readiness | nindent 8 }}
      {{- if $values.preStopSeconds }}
      lifecycle:
        preStop:
          exec: {command: [sleep, {{ $values.preStopSeconds | quote }}]}
      {{- end }}
      {{- with .resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        {{- include "invalidator.mounts" .root | nindent 8 }}
    {{- if $daemon }}
    {{- with $values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- end }}
  volumes:
    {{- include "invalidator.volumes" .root | nindent 4 }}
{{- end -}}

{{- define "invalidator.mounts" -}}
- {name: config, mountPath: /etc/invalidator/invalidator.toml, subPath: invalidator.toml, readOnly: true}
- {name: config, mountPath: /etc/invalidator/on-call.sh, subPath: on-call.sh, readOnly: true}
{{- range $file, $_ := .Values.modules }}
- {name: modules, mountPath: {{ printf "/app/%s" $file }}, subPath: {{ $file }}, readOnly: true}
{{- end }}
{{- range $name := list "store" "caches" "sasl" "tls" }}
{{- if (get $.Values.secrets $name).name }}
- {name: {{ $name }}, mountPath: /etc/invalidator/secrets/{{ $name }}, readOnly: true}
{{- end }}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "invalidator.volumes" -}}
- name: config
  configMap: {name: {{ include "invalidator.fullname" . }}}
{{- if .Values.modules }}
- name: modules
  configMap: {name: {{ include "invalidator.fullname" . }}-modules}
{{- end }}
{{- with .Values.secrets }}
{{- with .store }}
{{- if .name }}
- name: store
  secret: {secretName: {{ .name }}, defaultMode: 0440, items: [{key: {{ .key }}, path: url}]}
{{- end }}
{{- end }}
{{- with .caches }}
{{- if .name }}
- name: caches
  secret: {secretName: {{ .name }}, defaultMode: 0440, items: [{key: {{ .key }}, path: urls}]}
{{- end }}
{{- end }}
{{- with .sasl }}
{{- if .name }}
- name: sasl
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    {{- if .tokenKey }}
    items: [{key: {{ .tokenKey }}, path: token}]
    {{- else }}
    items: [{key: {{ .passwordKey }}, path: password}]
    {{- end }}
{{- end }}
{{- end }}
{{- with .tls }}
{{- if .name }}
- name: tls
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      {{- if .caKey }}
      - {key: {{ .caKey }}, path: ca.crt}
      {{- end }}
      {{- if .certKey }}
      - {key: {{ .certKey }}, path: tls.crt}
      - {key: {{ .keyKey }}, path: tls.key}
      {{- end }}
{{- end }}
{{- end }}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
