"""What the platform does over HTTP; its records name the request, the user and the session."""

import time
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from openai import OpenAIError

from apps.engineering import services
from apps.engineering.models import CRSDocument, PFDConversion, PIDAnalysisReport

LONGEST_NAME = 200


def _posted(view: Callable[[HttpRequest, str], dict[str, Any]]) -> Any:
    """The view, for POST with `?name=`; a model that does not answer is told as 502."""

    def answered(request: HttpRequest) -> HttpResponse:
        name = request.GET.get("name", "")
        if not name or len(name) > LONGEST_NAME or not request.body:
            return JsonResponse(
                {"detail": f"give ?name= of up to {LONGEST_NAME} characters, and a body"},
                status=400,
            )
        try:
            return JsonResponse(view(request, name))
        except OpenAIError as exc:
            return JsonResponse({"detail": f"the model did not answer: {exc}"}, status=502)

    return csrf_exempt(require_POST(answered))  # no cookie of a browser lets anybody in here


@_posted
def verify(request: HttpRequest, name: str) -> dict[str, Any]:
    """Find the issues of a P&ID, sent as a PNG."""
    report = PIDAnalysisReport.objects.create(drawing=name, status="processing")
    try:
        found = services.analyze_pid_diagram(request.body)
    except OpenAIError:
        report.status = "failed"
        report.save()
        raise
    severe = [issue for issue in found["issues"] if issue["severity"] == "critical"]
    report.status, report.confidence_score = "completed", found["confidence"]
    report.total_issues, report.critical_issues = len(found["issues"]), len(severe)
    report.save()
    return {"report": report.pk, "issues": found["issues"], "confidence": found["confidence"]}


@_posted
def convert(request: HttpRequest, name: str) -> dict[str, Any]:
    """Make a P&ID of a PFD's description: its specification, and a picture."""
    told = services.generate_specification(request.body.decode("utf-8", "replace"))
    picture = services.generate_pid_diagram(told["specification"])
    conversion = PFDConversion.objects.create(
        title=name,
        status="completed",
        confidence_score=told["confidence"],
        specification=told["specification"],
    )
    return {"conversion": conversion.pk, "specification": told["specification"], **picture}


@_posted
def check(request: HttpRequest, name: str) -> dict[str, Any]:
    """Check a comment resolution sheet, sent as lines of `number | author | comment | answer`."""
    started = time.perf_counter()
    found = services.validate_document(request.body.decode("utf-8", "replace"))
    document = CRSDocument.objects.create(
        name=name,
        status="valid" if found["valid"] else "incomplete",
        processing_time=time.perf_counter() - started,
    )
    return {"document": document.pk, **found}
