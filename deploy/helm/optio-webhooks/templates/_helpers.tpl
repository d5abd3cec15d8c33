{{- define "optio-webhooks.name" -}}
{{- if contains "optio-webhooks" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-optio-webhooks" (.Release.Name | trunc 35 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "optio-webhooks.selector" -}}
app.kubernetes.io/name: optio-webhooks
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "optio-webhooks.labels" -}}
{{ include "optio-webhooks.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "optio-webhooks.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Combinations that the schema can't refuse. */}}
{{- define "optio-webhooks.check" -}}
{{- if and (not .Values.redis.url) (not .Values.redis.urlSecret.name) }}{{ fail "redis: set redis.url, or redis.urlSecret.name if the URL has a password" }}{{ end }}
{{- if and .Values.redis.url .Values.redis.urlSecret.name }}{{ fail "redis: set redis.url or redis.urlSecret.name, not both" }}{{ end }}
{{- if not .Values.secrets.keysSecret.name }}{{ fail "secrets.keysSecret.name: the Secret with the sealing keys is needed; `optio-webhooks secrets generate-key` makes one" }}{{ end }}
{{- if and .Values.admin.enabled (not .Values.admin.tokenSecret.name) }}{{ fail "admin.tokenSecret.name: the Secret with the token is needed, or set admin.enabled to false" }}{{ end }}
{{- if and .Values.keda.enabled (lt (int .Values.keda.maxReplicas) (int .Values.keda.minReplicas)) }}{{ fail "keda.maxReplicas is below keda.minReplicas" }}{{ end }}
{{- if and .Values.networkPolicy.enabled (or (not .Values.networkPolicy.kafka) (not .Values.networkPolicy.redis)) }}{{ fail "networkPolicy: name the peers of Kafka and Redis in networkPolicy.kafka and networkPolicy.redis, or nothing could reach them" }}{{ end }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.extraEgress) (or (hasKey .Values.settings "delivery.proxy") (hasKey .Values.settings "traces.endpoint") (hasKey .Values.secretSettings "delivery.proxy") (hasKey .Values.secretSettings "traces.endpoint")) }}{{ fail "networkPolicy.extraEgress: allow the way to delivery.proxy and traces.endpoint, or nothing could reach them" }}{{ end }}
{{- range $key, $_ := .Values.secretSettings }}
{{- if or (hasPrefix "kafka.properties" $key) (has $key (list "kafka.brokers" "kafka.topic" "kafka.group" "redis.url" "secrets.keys" "admin.token" "admin.hosts" "admin.listen" "admin.trusted_proxies" "worker.drain_timeout")) }}{{ fail (printf "secretSettings.%s: this chart has a value of its own for it" $key) }}{{ end }}
{{- if hasKey $.Values.settings $key }}{{ fail (printf "secretSettings.%s: it is in settings as well" $key) }}{{ end }}
{{- end }}
{{- if hasKey .Values.settings "admin.tokens" }}{{ fail "settings.admin.tokens: tokens are secrets; name a Secret with a text such as [{ name = \"ci\", token = \"…\", role = \"read\" }] in secretSettings" }}{{ end }}
{{- range $key, $_ := .Values.settings }}
{{- if or (hasPrefix "kafka.properties" $key) (has $key (list "kafka.brokers" "kafka.topic" "kafka.group" "redis.url" "secrets.keys" "admin.token" "admin.hosts" "admin.listen" "admin.trusted_proxies" "worker.drain_timeout")) }}{{ fail (printf "settings.%s: this chart has a value of its own for it" $key) }}{{ end }}
{{- end }}
{{- end }}

{{/* Numbers of a values file are floating-point numbers in templates, and large ones would be written as 1e+06. */}}
{{- define "optio-webhooks.text" -}}
{{- if kindIs "slice" . }}{{ toJson . }}{{ else if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ toString . }}{{ end }}
{{- end }}

{{- define "optio-webhooks.env" -}}
- name: OPTIO_WEBHOOKS__ADMIN__LISTEN
  value: 0.0.0.0:8080
- name: OPTIO_WEBHOOKS__KAFKA__BROKERS
  value: {{ .Values.kafka.brokers | quote }}
- name: OPTIO_WEBHOOKS__KAFKA__TOPIC
  value: {{ .Values.kafka.topic | quote }}
- name: OPTIO_WEBHOOKS__KAFKA__GROUP
  value: {{ .Values.kafka.group | quote }}
{{- range $key, $value := .Values.kafka.properties }}
- name: OPTIO_WEBHOOKS__KAFKA__PROPERTIES__{{ $key | replace "." "_" | upper }}
  value: {{ include "optio-webhooks.text" $value | quote }}
{{- end }}
{{- range $key, $from := .Values.kafka.secretProperties }}
- name: OPTIO_WEBHOOKS__KAFKA__PROPERTIES__{{ $key | replace "." "_" | upper }}
  valueFrom: { secretKeyRef: { name: {{ $from.name | quote }}, key: {{ $from.key | quote }} } }
{{- end }}
- name: OPTIO_WEBHOOKS__REDIS__URL
{{- if .Values.redis.url }}
  value: {{ .Values.redis.url | quote }}
{{- else }}
  valueFrom: { secretKeyRef: { name: {{ .Values.redis.urlSecret.name | quote }}, key: {{ .Values.redis.urlSecret.key | quote }} } }
{{- end }}
- name: OPTIO_WEBHOOKS__SECRETS__KEYS
  valueFrom: { secretKeyRef: { name: {{ .Values.secrets.keysSecret.name | quote }}, key: {{ .Values.secrets.keysSecret.key | quote }} } }
{{- range $key, $value := .Values.settings }}
- name: OPTIO_WEBHOOKS__{{ $key | replace "." "__" | upper }}
  value: {{ include "optio-webhooks.text" $value | quote }}
{{- end }}
{{- range $key, $from := .Values.secretSettings }}
- name: OPTIO_WEBHOOKS__{{ $key | replace "." "__" | upper }}
  valueFrom: { secretKeyRef: { name: {{ $from.name | quote }}, key: {{ $from.key | quote }} } }
{{- end }}
{{- end }}

{{- define "optio-webhooks.container" -}}
image: {{ include "optio-webhooks.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
ports:
  - { name: http, containerPort: 8080 }
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
livenessProbe:
  httpGet: { path: /healthz, port: http }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: { path: /readyz, port: http }
  periodSeconds: 5
  timeoutSeconds: 5
{{- with .Values.files }}
volumeMounts:
{{- range . }}
  - { name: {{ .name }}, mountPath: /etc/optio-webhooks/{{ .name }}, readOnly: true }
{{- end }}
{{- end }}
{{- end }}

{{- define "optio-webhooks.pod" -}}
serviceAccountName: {{ include "optio-webhooks.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .Values.files }}
volumes:
{{- range . }}
  - { name: {{ .name }}, secret: { secretName: {{ .secret }}, defaultMode: 0440 } }
{{- end }}
{{- end }}
{{- end }}
